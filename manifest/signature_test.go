package manifest_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/manifest"
	"github.com/cloopfs/cloopfs/manifest/manifesttest"
)

func TestVerify(t *testing.T) {
	signer, other := manifesttest.NewSigner(1), manifesttest.NewSigner(2)
	key, err := manifest.ParseKey(signer.Key())
	if err != nil {
		t.Fatal(err)
	}
	text := []byte(golden)
	good := string(signer.Sign(text))
	line := func(n int, change func(string) string) string {
		lines := strings.SplitAfter(good, "\n")
		lines[n] = change(lines[n])
		return strings.Join(lines, "")
	}
	replace := func(from, to string) func(string) string {
		return func(s string) string { return strings.Replace(s, from, to, 1) }
	}
	const notOf = "not signed: the signature is not of this manifest and key"
	tests := []struct{ name, text, signature, says string }{
		{"good", golden, good, ""},
		{"another comment that nobody signs", golden, line(0, replace("secret", "whatever")), ""},
		{"another text", golden + "x", good, notOf + ": invalid signature"},
		{"another key", golden, string(other.Sign(text)), "not signed: by key 0706050403020102, not by 0706050403020101"},
		{"not hashed", golden, string(signer.SignOld(text)), "not signed: the signature is of an old kind"},
		{"the trusted comment", golden, line(2, replace("17", "18")), notOf + ": invalid global signature"},
		{"no comment", golden, line(0, replace("untrusted", "")), "not signed: no signature of minisign"},
		{"no trusted comment", golden, line(2, replace("trusted", "")), notOf},
		{"empty", golden, "", "not signed: no signature of minisign"},
		{"three lines", golden, line(3, func(string) string { return "" }), "not signed: no signature of minisign"},
		{"five lines", golden, good + "more\n", "not signed: no signature of minisign"},
		{"too long", golden, line(0, func(s string) string { return s[:20] + strings.Repeat("x", 4096) + s[20:] }), "more than 4096 bytes"},
		{"bits that mean nothing", golden, line(1, replace("=\n", "\n")), "not signed: no signature of minisign"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := key.Verify([]byte(test.text), []byte(test.signature))
			switch {
			case test.says == "" && err != nil:
				t.Error(err)
			case test.says != "" && (!errors.Is(err, manifest.ErrSignature) || !strings.Contains(err.Error(), test.says)):
				t.Errorf("error %v, want one that says %q", err, test.says)
			}
		})
	}
	t.Run("each bit", func(t *testing.T) {
		lines := strings.SplitAfter(good, "\n")
		from := len(lines[0])
		for i := from; i < len(good); i++ {
			if i == len(good)-1 {
				continue // the last newline
			}
			for bit := range 8 {
				flipped := []byte(good)
				flipped[i] ^= 1 << bit
				if key.Verify(text, flipped) == nil {
					t.Errorf("bit %d of byte %d is flipped: no error", bit, i)
				}
			}
		}
	})
}

func TestParseKey(t *testing.T) {
	signer := manifesttest.NewSigner(1)
	good := signer.Key()
	for _, text := range []string{good, good + "\n", string(signer.KeyFile()), strings.ReplaceAll(string(signer.KeyFile()), "\n", "\r\n")} {
		key, err := manifest.ParseKey(text)
		if err != nil || key.String() != good || key.ID() != "0706050403020101" {
			t.Errorf("ParseKey(%q): %v, %v, %v", text, key, key.ID(), err)
		}
	}
	for _, text := range []string{"", "x", good[1:], good + "x", "Q" + good[1:], good[:55] + "=", "untrusted comment: x\n", string(bytes.Repeat([]byte("A"), 56))} {
		if key, err := manifest.ParseKey(text); err == nil {
			t.Errorf("ParseKey(%q): %v, want an error", text, key)
		}
	}
	// One bit of the key, or its number, makes it another.
	text := []byte(golden)
	signature := signer.Sign(text)
	for i := range good {
		for bit := range 8 {
			flipped := []byte(good)
			flipped[i] ^= 1 << bit
			if key, err := manifest.ParseKey(string(flipped)); err == nil && key.Verify(text, signature) == nil {
				t.Errorf("bit %d of byte %d is flipped: no error", bit, i)
			}
		}
	}
}
