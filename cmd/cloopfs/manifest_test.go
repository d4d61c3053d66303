package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/testserver"
	"github.com/cloopfs/cloopfs/manifest"
	"github.com/cloopfs/cloopfs/manifest/manifesttest"
)

// signed is a directory with an image, its manifest, the signature and the hashes.
type signed struct {
	t      *testing.T
	dir    string
	signer *manifesttest.Signer
	disk   []byte
}

const (
	manifestSuffix  = ".manifest"
	signatureSuffix = ".manifest.minisig"
	hashesSuffix    = ".manifest.hashes"
)

// suffixes are those of all files of a signed image.
var suffixes = []string{"", manifestSuffix, signatureSuffix, hashesSuffix}

// template is the files of newSigned: making them takes a while.
var template struct {
	sync.Mutex
	files map[string][]byte
}

// newSigned packs a disk in blocks of 1 KiB, of version 4.0, and signs the image as version 1.
func newSigned(t *testing.T) *signed {
	t.Helper()
	s := &signed{t: t, dir: t.TempDir(), signer: manifesttest.NewSigner(1), disk: testDisk(1000 << 10)}
	s.write("disk", s.disk)
	template.Lock()
	defer template.Unlock()
	if template.files == nil {
		s.run(0, "create", "--codec", "best", "--block-size", "1024", s.path("disk"), s.path("image"))
		s.sign("image", 1)
		template.files = make(map[string][]byte)
		for _, suffix := range suffixes {
			template.files["image"+suffix] = s.read("image" + suffix)
		}
	}
	for name, content := range template.files {
		s.write(name, content)
	}
	return s
}

func (s *signed) path(name string) string { return filepath.Join(s.dir, name) }

func (s *signed) read(name string) []byte {
	s.t.Helper()
	content, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return content
}

func (s *signed) write(name string, content []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), content, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// edit changes a file.
func (s *signed) edit(name string, change func(p []byte)) {
	p := s.read(name)
	change(p)
	s.write(name, p)
}

// replace replaces words in a text, which must be there.
func (s *signed) replace(name, from, to string) {
	s.t.Helper()
	text := string(s.read(name))
	if !strings.Contains(text, from) {
		s.t.Fatalf("%q is not in %s", from, name)
	}
	s.write(name, []byte(strings.Replace(text, from, to, 1)))
}

// run runs the program, with a cache directory of the test's.
func (s *signed) run(code int, args ...string) result {
	s.t.Helper()
	r := program(s.t, []string{"SOURCE_DATE_EPOCH=1795392000"}, args...)
	if r.code != code {
		s.t.Fatalf("%q: got %+v, want exit status %d", args, r, code)
	}
	return r
}

// sign makes the manifest of an image anew, and signs it.
func (s *signed) sign(image string, version int, flags ...string) {
	s.t.Helper()
	s.run(0, append([]string{
		"manifest", "create", "--force", "--name", "test image", "--image-version", fmt.Sprint(version), s.path(image), "-o", s.path(image) + manifestSuffix,
	}, flags...)...)
	s.write(image+signatureSuffix, s.signer.Sign(s.read(image+manifestSuffix)))
}

// resign signs the manifest as it is.
func (s *signed) resign() {
	s.write("image"+signatureSuffix, s.signer.Sign(s.read("image"+manifestSuffix)))
}

// flags are those that have the image checked, and remember what was seen.
func (s *signed) flags(more ...string) []string {
	return append([]string{"--pubkey", s.signer.Key(), "--cache-dir", s.path("cache"), "--cache-size", "1GiB"}, more...)
}

// extract runs the program so that it reads all of the disk at source.
func (s *signed) extract(source string, flags ...string) result {
	s.t.Helper()
	return program(s.t, nil, append(append([]string{"extract"}, flags...), source, "-")...)
}

// entry is where entry n of the image's index lies.
func entry(n int) int { return 136 + 8*n }

// indexOf is the entries of an image's index.
func indexOf(image []byte) (entries []uint64) {
	for n := range binary.BigEndian.Uint32(image[132:]) + 1 {
		entries = append(entries, binary.BigEndian.Uint64(image[entry(int(n)):]))
	}
	return entries
}

const offsetOf = 1<<60 - 1

// twins are two blocks that are stored in as many bytes and with the same codec, but not in
// the same bytes.
func twins(t *testing.T, image []byte) (a, b int) {
	t.Helper()
	ix := indexOf(image)
	stored := func(n int) []byte { return image[ix[n]&offsetOf : ix[n+1]&offsetOf] }
	for a := range 300 {
		for b := a + 1; b < 300; b++ {
			if ix[a]>>60 == ix[b]>>60 && len(stored(a)) == len(stored(b)) && !bytes.Equal(stored(a), stored(b)) {
				return a, b
			}
		}
	}
	t.Fatal("there are none")
	return 0, 0
}

// Whatever is changed of an image, its manifest, the signature, the hashes or the key: the
// disk is not shown, and the message says why.
func TestNotAsSigned(t *testing.T) {
	const n = 700 // a block, in the second page of hashes
	tests := []struct {
		name   string
		change func(s *signed)
		flags  []string // in place of the usual ones
		says   string   // a regular expression
	}{
		{"signature", func(s *signed) {
			s.edit("image"+signatureSuffix, func(p []byte) { p[bytes.IndexByte(p, '\n')+40] ^= 1 })
		}, nil, `not signed: the signature is not of this manifest and key: invalid signature`},
		{"trusted comment", func(s *signed) { s.replace("image"+signatureSuffix, "timestamp:17", "timestamp:16") }, nil, `not signed: .*: invalid global signature`},
		{"signature of old kind", func(s *signed) { s.write("image"+signatureSuffix, s.signer.SignOld(s.read("image"+manifestSuffix))) }, nil, `not signed: the signature is of an old kind`},
		{"signature of another key", func(s *signed) {
			s.write("image"+signatureSuffix, manifesttest.NewSigner(2).Sign(s.read("image"+manifestSuffix)))
		}, nil, `not signed: by key 0706050403020102, not by 0706050403020101`},
		{"no signature", func(s *signed) { os.Remove(s.path("image" + signatureSuffix)) }, nil, `not there, and the image is to be checked by it \(.*\)`},
		{"signature too long", func(s *signed) { s.write("image"+signatureSuffix, make([]byte, 4097)) }, nil, `not a manifest: it has 4 KiB`},
		{"manifest", func(s *signed) { s.replace("image"+manifestSuffix, "version: 1", "version: 2") }, nil, `not signed: the signature is not of this manifest and key: invalid signature`},
		{"no manifest", func(s *signed) { os.Remove(s.path("image" + manifestSuffix)) }, nil, `not there, and the image is to be checked by it \(.*\)`},
		{"manifest that nobody can read", func(s *signed) {
			s.replace("image"+manifestSuffix, "blocks: ", "Blocks: ")
			s.resign()
		}, nil, `not a manifest: line 7: not "blocks: ", a value and a newline`},
		{"manifest of another version", func(s *signed) {
			s.replace("image"+manifestSuffix, "manifest 1", "manifest 2")
			s.resign()
		}, nil, `a manifest of another version: "2", not 1\ncloopfs: hint: a newer cloopfs reads it`},
		{"root", func(s *signed) {
			s.edit("image"+manifestSuffix, func(p []byte) {
				i := bytes.Index(p, []byte("root: ")) + 6
				p[i] = "10"[min(1, p[i]&1)]
			})
			s.resign()
		}, nil, `the hashes are not those of the manifest: page 0 of level 1 does not match`},
		{"top of the hashes", func(s *signed) { s.edit("image"+hashesSuffix, func(p []byte) { p[0] ^= 1 }) }, nil, `the hashes are not those of the manifest: page 0 of level 1 does not match`},
		{"page of hashes", func(s *signed) { s.edit("image"+hashesSuffix, func(p []byte) { p[64+40*n] ^= 1 }) }, nil, `read block 512: the hashes are not those of the manifest: page 1 of level 0 does not match`},
		{"hashes cut off", func(s *signed) { s.write("image"+hashesSuffix, s.read("image" + hashesSuffix)[:1000]) }, nil, `the hashes are not those of the manifest: 1000 bytes, and those of 1000 blocks have 40064`},
		{"no hashes", func(s *signed) { os.Remove(s.path("image" + hashesSuffix)) }, nil, `not there`},
		{"block", func(s *signed) {
			s.edit("image", func(p []byte) { p[indexOf(p)[n]&offsetOf] ^= 1 })
		}, nil, `read block 700: not as the manifest says: its bytes are others`},
		{"two blocks swapped", func(s *signed) {
			s.edit("image", func(p []byte) {
				a, b := twins(s.t, p)
				ix := indexOf(p)
				for i := range ix[a+1]&offsetOf - ix[a]&offsetOf {
					x, y := &p[ix[a]&offsetOf+i], &p[ix[b]&offsetOf+i]
					*x, *y = *y, *x
				}
			})
		}, nil, `read block \d+: not as the manifest says: these are the bytes of block \d+`},
		{"codec flag", func(s *signed) { s.edit("image", func(p []byte) { p[entry(n)] ^= 0x10 }) }, nil, `read block 700: not as the manifest says: its codec is \d in the index, \d in the manifest`},
		{"index", func(s *signed) { s.edit("image", func(p []byte) { p[entry(n)+7] ^= 1 }) }, nil, `read block 699: not as the manifest says: it has \d+ bytes in the index, \d+ in the manifest`},
		{"block size", func(s *signed) { s.edit("image", func(p []byte) { p[130] ^= 2 }) }, nil, `not as the manifest says: the bytes of a block: 1536 in the image, 1024 in the manifest`},
		{"number of blocks", func(s *signed) { s.edit("image", func(p []byte) { p[135] ^= 8 }) }, nil, `not as the manifest says: the number of blocks: 992 in the image, 1000 in the manifest`},
		{"first block", func(s *signed) { s.edit("image", func(p []byte) { p[entry(0)+7] ^= 1 }) }, nil, `not as the manifest says: the offset of the first block: 8145 in the image, 8144 in the manifest`},
		{"size", func(s *signed) { s.write("image", append(s.read("image"), 0)) }, nil, `not as the manifest says: the image's bytes: \d+ in the image, \d+ in the manifest`},
		{"another format", func(s *signed) {
			s.run(0, "create", "--layout", "v4", "--block-size", "1024", s.path("disk"), s.path("new"))
			s.sign("new", 1)
			for _, suffix := range suffixes {
				s.write("image"+suffix, s.read("new"+suffix))
			}
			s.replace("image", "V4.0", "V2.0")
		}, nil, `not as the manifest says: the format: cloop-v2 in the image, cloop-v4 in the manifest`},
		{"another image of the root that is asked for", func(*signed) {}, []string{"--manifest", "sha256:" + strings.Repeat("0", 64)}, `not the manifest that was asked for: its root is [0-9a-f]{64}`},
		{"unsigned: a fact", func(s *signed) { s.replace("image"+manifestSuffix, "block-size: 1024", "block-size: 2048") }, []string{"--manifest", "auto"}, `the hashes are not those of the manifest: page 0 of level 1 does not match`},
		{"older", func(s *signed) {
			s.sign("image", 7)
			s.run(0, append([]string{"verify"}, s.flags(s.path("image"))...)...)
			s.sign("image", 6)
		}, nil, `an older version than was seen before: test image, version 6, and version 7 was seen\ncloopfs: hint: --allow-older accepts it`},
		{"two of one version", func(s *signed) {
			s.run(0, append([]string{"verify"}, s.flags(s.path("image"))...)...)
			s.run(0, "create", "--force", "--block-size", "2048", s.path("disk"), s.path("image"))
			s.sign("image", 1)
		}, nil, `another image of this version was seen before: test image, version 1, with root [0-9a-f]{64}\ncloopfs: hint: .*`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSigned(t)
			flags := test.flags
			if flags == nil {
				flags = s.flags()
			}
			test.change(s)
			got := s.extract(s.path("image"), flags...)
			if got.code != cli.ExitImage || !regexp.MustCompile(`^cloopfs: (open \S*: (\S*: |\S*/)?)?`+test.says).MatchString(got.stderr) {
				t.Errorf("got exit status %d, %q\nwant %d, %q", got.code, got.stderr, cli.ExitImage, test.says)
			}
			if !strings.HasPrefix(string(s.disk), got.stdout) {
				t.Error("something was written that is not on the disk")
			}
		})
	}
	for name, flipped := range map[string]func(key []byte){
		"not signed: the signature is not of this manifest and key: invalid signature": func(key []byte) { key[30] ^= 1 },
		"not signed: by key 0706050403020101, not by":                                  func(key []byte) { key[6] ^= 1 },
		"--pubkey": func(key []byte) { key[0] ^= 1 },
	} {
		s := newSigned(t)
		key := []byte(s.signer.Key())
		flipped(key)
		got := s.extract(s.path("image"), "--pubkey", string(key))
		if got.code == 0 || got.stdout != "" || !strings.Contains(got.stderr, name) {
			t.Errorf("a flipped bit of the key: got %+v, want %q", got, name)
		}
	}
}

// Whoever reads blocks gets none that were not compared, whether what he reads is recorded or not.
func TestAllReadersAreChecked(t *testing.T) {
	const n = 700
	s := newSigned(t)
	s.edit("image", func(p []byte) { p[indexOf(p)[n]&offsetOf] ^= 1 })
	for _, record := range []bool{false, true} {
		opt := line.Options{Format: "auto", Proof: line.ProofOptions{Manifest: "auto"}, Record: record}
		l, err := line.Open(t.Context(), line.Location{Path: s.path("image")}, opt, 0, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if (l.Recorder() != nil) != record {
			t.Errorf("recorded: %v, want %v", l.Recorder() != nil, record)
		}
		if _, err := l.Disk().ReadAtContext(t.Context(), make([]byte, 1024), n*1024); !errors.Is(err, manifest.ErrMismatch) {
			t.Errorf("the disk, recorded %v: error %v, want ErrMismatch", record, err)
		}
		ignore := func(int64, []byte) error { return nil }
		if err := changesOf(l, nil).Runs.ReadRun(t.Context(), blockio.Demand, n, 1, ignore); !errors.Is(err, manifest.ErrMismatch) {
			t.Errorf("what is committed: error %v, want ErrMismatch", err)
		}
	}
}

// What is as it was signed is shown, in every form that a manifest can be given in.
func TestAsSigned(t *testing.T) {
	s := newSigned(t)
	s.sign("image", 3)
	root := strings.TrimSpace(s.run(0, "manifest", "create", "--force", "--name", "test image", "--image-version", "3", s.path("image"), "-o", s.path("copy")).stdout)
	if !bytes.Equal(s.read("copy"), s.read("image"+manifestSuffix)) || !bytes.Equal(s.read("copy.hashes"), s.read("image"+hashesSuffix)) {
		t.Error("two manifests of one image differ")
	}
	s.write("copy.minisig", s.signer.Sign(s.read("copy")))
	s.write("key.pub", s.signer.KeyFile())
	srv, url := serveSigned(t, s)
	s.write("raw", s.disk)
	s.sign("raw", 3, "--format", "raw")
	for _, flags := range [][]string{
		{"--manifest", "auto"},
		{"--manifest", root},
		{"--manifest", s.path("copy")},
		{"--pubkey", s.signer.Key()},
		{"--pubkey", s.path("key.pub"), "--manifest", s.path("copy")},
		{"--pubkey", s.path("key.pub"), "--manifest", root},
		{"--pubkey", s.path("key.pub"), "--manifest", srv.URL("image" + manifestSuffix)},
		s.flags(),
	} {
		for _, source := range []string{s.path("image"), url} {
			if got := s.extract(source, flags...); got.code != 0 || got.stdout != string(s.disk) {
				t.Errorf("%q %s: exit status %d, %q", flags, source, got.code, got.stderr)
			}
		}
	}
	if got := s.extract(s.path("raw"), "--pubkey", s.signer.Key(), "--format", "raw"); got.code != 0 || got.stdout != string(s.disk) {
		t.Errorf("a disk that is not compressed: exit status %d, %q", got.code, got.stderr)
	}
	if got := s.run(0, "verify", "--pubkey", s.signer.Key(), s.path("image")); got.stdout != "1000 blocks are right, as the manifest says\n" {
		t.Errorf("verify: %+v", got)
	}
	got := s.run(0, "info", "--pubkey", s.signer.Key(), s.path("image"))
	if !strings.Contains(got.stdout, "manifest  test image, version 3 of 2026-11-23, signed by key 0706050403020101\n") || !regexp.MustCompile(`codec +zlib: .* \(says the index\)`).MatchString(got.stdout) {
		t.Errorf("info: %q", got.stdout)
	}
	got = s.run(0, "info", "--json", "--manifest", "auto", s.path("image"))
	if !strings.Contains(got.stdout, `"root": "`+root+`"`) || strings.Contains(got.stdout, `"key"`) {
		t.Errorf("info --json: %q", got.stdout)
	}
}

// What is told of a disk that is not compressed is proven, too.
func TestInfoOfSignedDisk(t *testing.T) {
	s := newSigned(t)
	disk := make([]byte, 1<<20)
	disk[510], disk[511] = 0x55, 0xaa
	entry := disk[446:]
	entry[4] = 0x83
	binary.LittleEndian.PutUint32(entry[8:], 128)
	binary.LittleEndian.PutUint32(entry[12:], 1000)
	s.write("image", disk)
	s.sign("image", 1)
	info := func(code int) result { return s.run(code, "info", "--pubkey", s.signer.Key(), s.path("image")) }
	if got := info(0); !strings.Contains(got.stdout, "1: 500 KiB at 65536") {
		t.Errorf("got %q", got.stdout)
	}
	// Nor is the kind of the disk told by bytes that are not.
	w, first := newWeb(t, s), true
	url := serve(t, func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/image" || !first {
			w.ServeHTTP(out, r)
			return
		}
		first = false
		serveAs(out, r, append([]byte("LUKS\xba\xbe"), disk[6:]...))
	})
	if got := s.run(0, "info", "--pubkey", s.signer.Key(), url+"/image"); !strings.Contains(got.stdout, "1: 500 KiB at 65536") || first {
		t.Errorf("got %q", got.stdout)
	}
	entry[12] ^= 1
	s.write("image", disk)
	if got := info(cli.ExitImage); !strings.Contains(got.stderr, "read block 0: not as the manifest says: its bytes are others") || got.stdout != "" {
		t.Errorf("the partition table is another: got %+v", got)
	}
}

// The manifests that are asked for in ways that make no sense.
func TestManifestUsage(t *testing.T) {
	s := newSigned(t)
	image, key := s.path("image"), s.signer.Key()
	create := []string{"manifest", "create", image, "-o", s.path("new")}
	tests := []struct {
		code int
		says string
		args []string
	}{
		{cli.ExitUsage, "--manifest '': is empty", []string{"verify", "--manifest", "", image}},
		{cli.ExitUsage, "--manifest sha256:123: not the 64 small hexadecimal digits of a SHA-256", []string{"verify", "--manifest", "sha256:123", image}},
		{cli.ExitUsage, "a URL with a query has no manifest beside it", []string{"verify", "--pubkey", key, "http://127.0.0.1:1/image?x"}},
		{cli.ExitUsage, "neither a public key of minisign nor a file", []string{"verify", "--pubkey", s.path("none"), image}},
		{cli.ExitUsage, "image: not a public key of minisign", []string{"verify", "--pubkey", image, image}},
		{cli.ExitUsage, "--allow-older without --pubkey", []string{"verify", "--allow-older", image}},
		{cli.ExitUsage, "a manifest is of one image", []string{"prefetch", "--cache-size", "1GiB", "--manifest", "x", "http://127.0.0.1:1/a", "http://127.0.0.1:1/b"}},
		{cli.ExitUsage, "--name is missing", append(create, "--image-version", "1")},
		{cli.ExitUsage, "--image-version is missing", append(create, "--name", "x")},
		{cli.ExitUsage, "-o FILE is missing", []string{"manifest", "create", image, "--name", "x", "--image-version", "1"}},
		{cli.ExitUsage, "--name or --image-version: ", append(create, "--name", "x\ny", "--image-version", "1")},
		{cli.ExitUsage, "--name or --image-version: ", append(create, "--name", "x", "--image-version", "-1")},
		{cli.ExitUsage, "unknown flag: --manifest", append(create, "--name", "x", "--image-version", "1", "--manifest", "auto")},
		{cli.ExitFailure, "file already exists\ncloopfs: hint: --force replaces it", []string{"manifest", "create", image, "--name", "x", "--image-version", "1", "-o", image + manifestSuffix}},
		{cli.ExitFailure, "it is the image", []string{"manifest", "create", "--force", image, "--name", "x", "--image-version", "1", "-o", image}},
		{cli.ExitImage, "nothing.manifest: not there, and the image is to be checked by it", []string{"verify", "--manifest", s.path("nothing.manifest"), image}},
	}
	for _, test := range tests {
		got := program(t, nil, test.args...)
		if got.code != test.code || got.stdout != "" || !strings.Contains(got.stderr, test.says) {
			t.Errorf("%q: got %+v\nwant exit status %d, %q", test.args, got, test.code, test.says)
		}
	}
	if _, err := os.Stat(s.path("new")); err == nil {
		t.Error("a manifest was made")
	}
	// No manifest is made of what is bad.
	s.edit("image", func(p []byte) {
		for n, at := range indexOf(p) {
			if at>>60 == 0 { // zlib
				p[at&offsetOf+2] ^= 0xff
				p[indexOf(p)[n+1]&offsetOf-1] ^= 1
				break
			}
		}
	})
	got := s.run(cli.ExitImage, append(create, "--name", "x", "--image-version", "1")...)
	if !strings.Contains(got.stderr, "hint: cloopfs verify lists the bad blocks") {
		t.Errorf("a bad image: got %+v", got)
	}
	for _, name := range []string{"new", "new.hashes"} {
		if _, err := os.Stat(s.path(name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

// A version that is older than one that was seen is accepted if that is asked for, and the
// newer stays the newest; other names and keys have nothing to do with it.
func TestAllowOlder(t *testing.T) {
	s := newSigned(t)
	s.sign("image", 5)
	verify := func(flags ...string) result {
		return program(t, nil, append(append([]string{"verify"}, flags...), s.path("image"))...)
	}
	check := func(want int, flags ...string) {
		t.Helper()
		if got := verify(flags...); got.code != want {
			t.Errorf("%q: got %+v, want exit status %d", flags, got, want)
		}
	}
	check(0, s.flags()...)
	s.sign("image", 4)
	check(cli.ExitImage, s.flags()...)
	check(0, s.flags("--allow-older")...)
	check(cli.ExitImage, s.flags()...)
	check(0, "--pubkey", s.signer.Key(), "--cache-dir", s.path("cache"), "--cache-size", "0") // where nothing is remembered
	check(0, "--manifest", "auto", "--cache-dir", s.path("cache"), "--cache-size", "1GiB")
	s.run(0, "cache", "trim", "--cache-dir", s.path("cache"), "--cache-size", "0", "--min-free", "1GiB")
	s.run(0, "cache", "remove", "--cache-dir", s.path("cache"))
	check(cli.ExitImage, s.flags()...)
	s.signer = manifesttest.NewSigner(2)
	s.resign()
	check(0, s.flags()...)
	s.signer = manifesttest.NewSigner(1)
	s.replace("image"+manifestSuffix, "test image", "test-image")
	s.resign()
	check(0, s.flags()...)
	s.sign("image", 6)
	check(0, s.flags()...)
	s.sign("image", 5)
	check(cli.ExitImage, s.flags()...)
}

// What was seen and can't be read is no older version; the message says how to go on.
func TestDamagedSeen(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"not a manifest": func(path string) error { return os.WriteFile(path, []byte("cloopfs"), 0o600) },
		"empty":          func(path string) error { return os.Truncate(path, 0) },
		"a link":         func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/dev/null", path)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSigned(t)
			verify := func(code int, flags ...string) result {
				return s.run(code, append(append([]string{"verify"}, s.flags(flags...)...), s.path("image"))...)
			}
			verify(0)
			files, err := filepath.Glob(s.path("cache/seen-*"))
			if err != nil || len(files) != 1 {
				t.Fatal(files, err)
			}
			if err := damage(files[0]); err != nil {
				t.Fatal(err)
			}
			got := verify(cli.ExitImage)
			if !strings.Contains(got.stderr, "what was seen of it before can't be read: ") || !strings.HasSuffix(got.stderr, "\ncloopfs: hint: --allow-older accepts this version\n") {
				t.Errorf("got %q", got.stderr)
			}
			verify(0, "--allow-older")
			if name != "a link" { // which nobody writes through, or over
				verify(0)
			}
		})
	}
}

// serveSigned serves the files of s.
func serveSigned(t *testing.T, s *signed) (*testserver.Server, string) {
	t.Helper()
	srv, err := testserver.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	for _, suffix := range suffixes {
		srv.AddBytes("image"+suffix, s.read("image"+suffix))
	}
	return srv, srv.URL("image")
}

// Opening a large image with its manifest costs three requests more than without. All are told of.
func TestRequestsOfManifest(t *testing.T) {
	s := &signed{t: t, dir: t.TempDir(), signer: manifesttest.NewSigner(1)}
	s.write("disk", nil)
	if err := os.Truncate(s.path("disk"), 10<<30); err != nil {
		t.Fatal(err)
	}
	s.run(0, "create", "--level", "1", s.path("disk"), s.path("image"))
	s.sign("image", 1)
	srv, url := serveSigned(t, s)
	count := func(proof line.ProofOptions, cache line.CacheOptions) int {
		srv.Reset()
		opt := line.Options{Connections: 32, Format: "auto", Proof: proof, Cache: cache}
		l, err := line.Open(t.Context(), line.Location{URL: url}, opt, 0, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		told := int64(0)
		for _, c := range causesOf(l) {
			told += c.Requests
		}
		if sent := srv.Stats().Requests; told != int64(sent) {
			t.Errorf("%d requests, and %d are told of: %+v", sent, told, causesOf(l))
		}
		return srv.Stats().Requests
	}
	cache := line.CacheOptions{Dir: cli.Name(s.path("cache")), Size: 1 << 30}
	proof := line.ProofOptions{Manifest: "auto", Key: s.signer.Key()}
	for _, cache := range []line.CacheOptions{{}, cache, cache} {
		without := count(line.ProofOptions{}, cache)
		if with := count(proof, cache); with > without+3 {
			t.Errorf("%d requests with a manifest, %d without; want at most 3 more: %v", with, without, srv.Stats().Ranges)
		}
	}
}
