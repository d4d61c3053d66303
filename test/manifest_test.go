//go:build integration

package test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/fetch"
	"github.com/cloopfs/cloopfs/internal/testserver"
	"github.com/cloopfs/cloopfs/localfile"
	"github.com/cloopfs/cloopfs/manifest"
	"github.com/cloopfs/cloopfs/manifest/manifesttest"
)

// What docs/manifest.md tells people to type works, with Debian's minisign and nginx.
func TestManifestRecipe(t *testing.T) {
	text, err := os.ReadFile("../docs/manifest.md")
	if err != nil {
		t.Fatal(err)
	}
	r := &recipe{dir: t.TempDir()}
	for _, block := range fences.FindAllStringSubmatch(string(text), -1) {
		r.blocks = append(r.blocks, block[1])
	}
	s := makeImage(t, 64*kib, blocks(64, 10*kib)...)
	image := filepath.Join(r.dir, "debian.cloop")
	if err := os.WriteFile(image, s.image, 0o644); err != nil {
		t.Fatal(err)
	}
	// minisign asks for a password.
	sh := func(input, after string) string {
		t.Helper()
		cmd := exec.Command("sh", "-e", "-u", "-c", r.next(t)+after)
		cmd.Dir, cmd.Stdin = r.dir, strings.NewReader(input)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(cloopfs)+":"+os.Getenv("PATH"))
		return output(t, startCmd(t, cmd))
	}
	sh("secret\nsecret\n", "")
	out := sh("secret\n", "")
	if !strings.Contains(out, "sha256:") || !strings.Contains(out, "Signature and comment signature verified") {
		t.Errorf("got %q, want the root, and that minisign has verified", out)
	}
	// Published: what the web server may read.
	must(t, "chmod", "-R", "a+rX", r.dir)
	r.serveAs(t, "https://example.org/debian.cloop", image)
	dir := r.mountpoint(t, "/media/image")
	out = sh("", "")
	if !regexp.MustCompile(`(?m)^manifest +debian-live, version 1 of [0-9-]{10}, signed by key [0-9A-F]{16}$`).MatchString(out) {
		t.Errorf("status says %q", out)
	}
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)
	if len(r.blocks) > 0 {
		t.Errorf("not tested: %q", r.blocks)
	}
	// By the key itself; and a signature of the older kind, which Debian's minisign can make.
	pub, err := os.ReadFile(filepath.Join(r.dir, "minisign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	key := strings.Fields(string(pub))[len(strings.Fields(string(pub)))-1]
	must(t, cloopfs, "verify", "--pubkey", key, image)
	cmd := exec.Command("minisign", "-S", "-l", "-s", "minisign.key", "-m", "debian.cloop.manifest")
	cmd.Dir, cmd.Stdin = r.dir, strings.NewReader("secret\n")
	output(t, startCmd(t, cmd))
	checkFailure(t, run(t, cloopfs, "verify", "--pubkey", key, image), 3, "not signed: the signature is of an old kind")
}

// signedImage serves an image with its manifest, and returns the flags to check it.
func signedImage(t *testing.T, s *synthetic) (srv *testserver.Server, url string, flags []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, s.image, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, cloopfs, "manifest", "create", "--name", "test", "--image-version", "1", path, "-o", path+".manifest")
	srv, url = serve(t, s.image)
	signer := manifesttest.NewSigner(1)
	for _, suffix := range []string{".manifest", ".manifest.hashes"} {
		content, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		srv.AddBytes("disk.cloop"+suffix, content)
		if suffix == ".manifest" {
			srv.AddBytes("disk.cloop.manifest.minisig", signer.Sign(content))
		}
	}
	return srv, url, []string{"--pubkey", signer.Key()}
}

// A block that is not the one that was signed is an I/O error for its readers and nobody
// else, with a line in the log; once, it is fetched again.
func TestSignedMount(t *testing.T) {
	const n = 5
	for _, times := range []int{0, 1, -1} {
		for _, reader := range readers {
			s := makeImage(t, 64*kib, blocks(32, 10*kib)...)
			srv, url, flags := signedImage(t, s)
			off, size := s.stored(n)
			srv.Set(func(c *testserver.Config) { c.FlipTimes, c.FlipOffset = times, int64(off+size/2) })
			log := filepath.Join(t.TempDir(), "log")
			dir := mount(t, url, append(flags, "--log-file", log)...)
			for i := range 32 {
				p := startReader(t, reader.args(diskOf(dir), i*64*kib, pageSize))
				r := p.result(t)
				switch {
				case i != n || times >= 0:
					checkBytes(t, p.name, r.stdout, s.block(i)[:pageSize])
				case r.code == 0 || r.stdout != "":
					t.Errorf("%s: %v, want an error and no data", p.name, r)
				}
			}
			st := statusOf(t, dir)
			if sent := srv.Stats().Requests; st.Fetched.Requests != int64(sent) {
				t.Errorf("status tells of %d requests, the server of %d", st.Fetched.Requests, sent)
			}
			m := st.Manifest
			if m == nil || m.Name != "test" || m.Key != "0706050403020101" || m.Proven < 31 || (m.Refused > 0) != (times != 0) {
				t.Errorf("flipped %d times: status says %+v", times, m)
			}
			if text, _ := os.ReadFile(log); bytes.Contains(text, []byte("block 5: not as the manifest says: its bytes are others")) != (times < 0) {
				t.Errorf("flipped %d times: the log says %s", times, text)
			}
			umount(t, dir)
		}
	}
}

// What is not signed is not mounted, and what is can be written over and committed.
func TestSignedOverlay(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(32, 10*kib)...)
	_, url, flags := signedImage(t, s)
	over := filepath.Join(t.TempDir(), "over")
	dir := mount(t, url, append(flags, "--overlay", over)...)
	must(t, "dd", "if=/dev/zero", "of="+diskOf(dir), "bs=4096", "count=1", "seek=3", "conv=notrunc,fsync", "status=none")
	umount(t, dir)
	out := filepath.Join(t.TempDir(), "new")
	must(t, cloopfs, append([]string{"overlay", "commit", over, out}, flags...)...)
	want := bytes.Clone(s.disk)
	clear(want[3*pageSize : 4*pageSize])
	checkBytes(t, "what was committed", must(t, cloopfs, "extract", out, "-"), want)
	// Of blocks without a checksum of their own the manifest alone knows.
	plain := filepath.Join(t.TempDir(), "plain")
	must(t, cloopfs, "extract", url, plain+".raw")
	must(t, cloopfs, "create", "--codec", "none", plain+".raw", plain)
	must(t, cloopfs, "manifest", "create", "--name", "plain", "--image-version", "1", plain, "-o", plain+".manifest")
	over = filepath.Join(t.TempDir(), "over")
	dir = mount(t, plain, "--manifest", "auto", "--overlay", over)
	umount(t, dir)
	image, err := os.OpenFile(plain, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := image.Stat()
	if err == nil {
		_, err = image.WriteAt([]byte("other bytes"), info.Size()/2)
	}
	if err := errors.Join(err, image.Close(), os.Chtimes(plain, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	r := run(t, cloopfs, "overlay", "commit", "--manifest", "auto", over, out+"2")
	checkFailure(t, r, 3, "not as the manifest says: its bytes are others")
	must(t, cloopfs, "overlay", "commit", over, out+"2")

	_, other := serve(t, s.image)
	r = run(t, cloopfs, append([]string{"mount", other, makeDir(t)}, flags...)...)
	checkFailure(t, r, 3, "disk.cloop.manifest: not there, and the image is to be checked by it")
}

// Checking makes no garbage for each block, either. (Not a unit test, as
// TestReadingMakesNoGarbage.)
func TestCheckingMakesNoGarbage(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(600, 4*kib)...)
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, s.image, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := localfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ix, err := cloop.Open(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	m := &manifest.Manifest{Facts: manifest.Facts{Blocks: ix.Blocks()}}
	hashes, err := os.Create(path + ".hashes")
	if err != nil {
		t.Fatal(err)
	}
	defer hashes.Close()
	m.Root, err = manifest.Build(t.Context(), hashes, m.Facts, 1, func(_ context.Context, first int64, leaves []manifest.Leaf) error {
		for i := range leaves {
			n := int(first) + i
			leaves[i] = manifest.LeafOf(int64(n), 0, s.image[s.offsets[n]:s.offsets[n+1]])
		}
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := localfile.Open(hashes.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	proof, err := manifest.OpenTree(tree, m)
	if err != nil {
		t.Fatal(err)
	}
	defer proof.Close()
	sched := fetch.New(f, ix, fetch.Options{Store: blockio.Nearby(f)})
	defer sched.Close()
	im := cloop.NewImage(ix, manifest.NewChecked(sched, ix, proof), cache.NewMemory(mib, ix.BlockSize()))
	p, off := make([]byte, 64*kib), int64(0)
	for _, n := range []int64{0, 599} { // both pages
		if _, err := proof.Leaf(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	n := testing.AllocsPerRun(590, func() {
		if _, err := im.ReadAtContext(t.Context(), p, off); err != nil {
			t.Fatal(err)
		}
		off += 64 * kib
	})
	if n > 0 {
		t.Errorf("a read of a block allocates %v times, want none", n)
	}
}
