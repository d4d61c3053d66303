// Package manifesttest signs manifests for tests, by other code than that which they test.
package manifesttest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"

	"golang.org/x/crypto/blake2b"
)

// Signer has a secret key.
type Signer struct {
	id  [8]byte
	key ed25519.PrivateKey
}

// NewSigner returns the Signer number n, always the same.
func NewSigner(n byte) *Signer {
	return &Signer{
		id:  [8]byte{n, 1, 2, 3, 4, 5, 6, 7},
		key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize)),
	}
}

// Key is the public key, as minisign prints it.
func (s *Signer) Key() string {
	return encode("Ed", s.id[:], s.key.Public().(ed25519.PublicKey))
}

// KeyFile is the public key as a file.
func (s *Signer) KeyFile() []byte {
	return fmt.Appendf(nil, "untrusted comment: minisign public key\n%s\n", s.Key())
}

// Sign returns the signature of text, as minisign writes it.
func (s *Signer) Sign(text []byte) []byte {
	sum := blake2b.Sum512(text)
	return s.sign("ED", sum[:])
}

// SignOld returns the signature of text as minisign once wrote it: of the text itself.
func (s *Signer) SignOld(text []byte) []byte { return s.sign("Ed", text) }

func (s *Signer) sign(algorithm string, message []byte) []byte {
	const comment = "timestamp:1700000000\tfile:image.manifest\thashed"
	signature := ed25519.Sign(s.key, message)
	global := ed25519.Sign(s.key, append(bytes.Clone(signature), comment...))
	return fmt.Appendf(nil, "untrusted comment: signature from minisign secret key\n%s\ntrusted comment: %s\n%s\n",
		encode(algorithm, s.id[:], signature), comment, encode("", global))
}

func encode(algorithm string, parts ...[]byte) string {
	return base64.StdEncoding.EncodeToString(append([]byte(algorithm), bytes.Join(parts, nil)...))
}
