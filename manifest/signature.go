package manifest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/jedisct1/go-minisign"
)

// ErrSignature says that a manifest is not signed as it has to be.
var ErrSignature = errors.New("not signed")

// Key is who may sign a manifest: a public key of minisign.
type Key struct{ key minisign.PublicKey }

// ParseKey reads a key: the 56 letters that minisign prints, or the file minisign.pub, in which
// they follow a comment.
func ParseKey(text string) (Key, error) {
	text = strings.TrimSpace(text)
	if comment, rest, ok := strings.Cut(text, "\n"); ok && strings.HasPrefix(comment, "untrusted comment:") {
		text = strings.TrimSpace(rest)
	}
	key, err := minisign.NewPublicKey(text)
	if err != nil || key.SignatureAlgorithm != [2]byte{'E', 'd'} {
		return Key{}, errors.New("not a public key of minisign")
	}
	return Key{key}, nil
}

// String is the key as minisign prints it.
func (k Key) String() string {
	raw := append(k.key.SignatureAlgorithm[:], k.key.KeyId[:]...)
	return base64.StdEncoding.EncodeToString(append(raw, k.key.PublicKey[:]...))
}

// ID is the number by which minisign calls the key.
func (k Key) ID() string { return keyID(k.key.KeyId) }

// keyID writes the number of a key as minisign does.
func keyID(id [8]byte) string {
	var b strings.Builder
	for i := len(id) - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "%02X", id[i])
	}
	return b.String()
}

// Verify says whether text was signed with the key: signature is what minisign has written.
// The error wraps ErrSignature. What was not hashed before it was signed, as old versions of
// minisign did it, is refused, and the trusted comment has to be the signer's, too.
func (k Key) Verify(text, signature []byte) error {
	fail := func(why string) error { return fmt.Errorf("%w: %s", ErrSignature, why) }
	if len(signature) > MaxSize {
		return fail(fmt.Sprintf("the signature has more than %d bytes", MaxSize))
	}
	if !canonical(signature) {
		return fail("no signature of minisign")
	}
	s, err := minisign.DecodeSignature(string(signature))
	if err != nil {
		return fail("no signature of minisign")
	}
	switch {
	case s.SignatureAlgorithm == [2]byte{'E', 'd'}:
		return fail("the signature is of an old kind, without a hash: sign anew, without minisign -l")
	case s.SignatureAlgorithm != [2]byte{'E', 'D'}:
		return fail("a signature of an unknown kind")
	case s.KeyId != k.key.KeyId:
		return fail(fmt.Sprintf("by key %s, not by %s", keyID(s.KeyId), k.ID()))
	}
	if _, err := k.key.Verify(text, s); err != nil {
		return fail("the signature is not of this manifest and key: " + strings.ToLower(err.Error()))
	}
	return nil
}

// canonical says that the two lines of a signature that are numbers are written as minisign
// writes them: base64 lets some bits be anything.
func canonical(signature []byte) bool {
	lines := strings.Split(strings.TrimSuffix(string(signature), "\n"), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "untrusted comment: ") {
		return false
	}
	for _, i := range []int{1, 3} {
		line := strings.TrimSuffix(lines[i], "\r")
		if _, err := base64.StdEncoding.Strict().DecodeString(line); err != nil {
			return false
		}
	}
	return true
}
