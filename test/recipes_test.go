//go:build integration

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// recipes are the tests of docs/guests.md: for each of its sections with
// commands, a test that executes them.
var recipes = map[string]func(*testing.T, *recipe){
	"One read-only mount for many guests": cookManyGuests,
	"A live ISO":                          cookLiveISO,
	"dm-snapshot above a loop device":     cookSnapshot,
	"Another /opt":                        cookOpt,
	"Copies":                              cookCopies,
}

// recipe is what a section of docs/guests.md tells people to type.
type recipe struct {
	blocks []string // not yet run
	paths  []string // old, new, ...: of those in the text
	dir    string   // where the commands run
}

// fences finds the shell commands in a text.
var fences = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// All commands in docs/guests.md do what is said there.
func TestGuestRecipes(t *testing.T) {
	text, err := os.ReadFile("../docs/guests.md")
	if err != nil {
		t.Fatal(err)
	}
	var tested []string
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		heading, body, _ := strings.Cut(section, "\n")
		r := new(recipe)
		for _, block := range fences.FindAllStringSubmatch(body, -1) {
			r.blocks = append(r.blocks, block[1])
		}
		cook := recipes[heading]
		if len(r.blocks) == 0 && cook == nil {
			continue
		}
		tested = append(tested, heading)
		t.Run(heading, func(t *testing.T) {
			if cook == nil {
				t.Fatalf("no test has these commands: %q", r.blocks)
			}
			r.dir = t.TempDir()
			cook(t, r)
			if len(r.blocks) > 0 {
				t.Errorf("not tested: %q", r.blocks)
			}
		})
	}
	for heading := range recipes {
		if !slices.Contains(tested, heading) {
			t.Errorf("docs/guests.md has no section %q", heading)
		}
	}
}

// at puts a path of the test's own in the place of one in the text.
func (r *recipe) at(text, path string) { r.paths = append(r.paths, text, path) }

// next takes the next block out, with the test's own paths.
func (r *recipe) next(t *testing.T) string {
	t.Helper()
	if len(r.blocks) == 0 {
		t.Fatal("the section has no more commands")
	}
	block := r.blocks[0]
	r.blocks = r.blocks[1:]
	return r.own(block)
}

// own replaces the text's paths.
func (r *recipe) own(text string) string { return strings.NewReplacer(r.paths...).Replace(text) }

// run executes the next block in a shell, then some commands that check what has
// become of it, in the same shell. Guests that it starts run a script.
func (r *recipe) run(t *testing.T, check, script string) string {
	t.Helper()
	return output(t, r.start(t, check, script))
}

// start is run, but does not wait.
func (r *recipe) start(t *testing.T, check, script string) *process {
	t.Helper()
	cmd := exec.Command("sh", "-e", "-u", "-c", r.next(t)+r.own(check))
	cmd.Dir = r.dir
	return withGuests(t, cmd, script)
}

// boot executes the next block, which starts a guest whose script has to succeed.
func (r *recipe) boot(t *testing.T, script string) { t.Helper(); checkGuest(t, r.start(t, "", script)) }

// output waits for a command, which has to succeed, and is what it printed.
func output(t *testing.T, p *process) string {
	t.Helper()
	res := p.result(t)
	if res.code != 0 {
		t.Fatalf("%s: %v", p.name, res)
	}
	return res.stdout
}

// serveAs serves a file under the URL that the text has for it.
func (r *recipe) serveAs(t *testing.T, text, file string) {
	t.Helper()
	r.at(text, nginx.start(t, filepath.Dir(file))+"/"+filepath.Base(file))
}

// mountpoint makes a mountpoint of cloopfs in the place of one in the text.
func (r *recipe) mountpoint(t *testing.T, text string) string {
	t.Helper()
	dir := makeDir(t)
	r.at(text, dir)
	return dir
}

// directory makes a directory in the place of one in the text, where a file
// system of a loop device may be mounted.
func (r *recipe) directory(t *testing.T, text string) string {
	t.Helper()
	dir := filepath.Join(r.dir, filepath.Base(text))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.at(text, dir)
	t.Cleanup(func() {
		for mounted(dir) {
			if !try("umount", dir) {
				t.Errorf("cleaning up: %s can't be unmounted", dir)
				try("umount", "--lazy", dir)
			}
		}
		for device, file := range loopDevices() {
			if !within(file, scratch) {
				continue
			}
			attached[device] = file
			if try("losetup", "--detach", device); !detachedSoon(device) {
				t.Errorf("cleaning up: %s is still attached", device)
			}
		}
	})
	return dir
}

func cookManyGuests(t *testing.T, r *recipe) {
	f := need(t, debian64K)
	r.serveAs(t, "https://example.org/debian.cloop", f.image)
	dir := r.mountpoint(t, "/media/image")
	r.run(t, "", "")
	r.boot(t, goneScript+writeScript)
	r.boot(t, goneScript+writeScript)
	// Each guest has its own disk, and nobody has changed the one below.
	boot(t, fmt.Sprintf("qemu-system-x86_64 -m 1024 -drive file=%s/guest1.qcow2,if=virtio", r.dir), checkScript)
	must(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", filepath.Join(r.dir, "guest2.qcow2"), f.raw)
	must(t, "cmp", diskOf(dir), f.raw)
	umount(t, dir)
}

// A live system boots from an ISO file on a web server as from one beside it, and
// reads from it what it should.
func cookLiveISO(t *testing.T, r *recipe) {
	iso, err := liveISO()
	if err != nil {
		t.Fatalf("make the test disc: %v", err)
	}
	r.serveAs(t, "https://example.org/live.iso", iso)
	dir := r.mountpoint(t, "/media/image")
	if out := r.run(t, "", ""); !strings.Contains(out, bootMark) {
		t.Errorf("guest: without the mark %s: %q", bootMark, out)
	}
	server := statusOf(t, dir).Servers[0]
	t.Logf("%d bytes in %d requests, of an ISO file of %d", server.Bytes, server.Requests, sizeOf(t, iso))
	umount(t, dir)
}

// The mount is on the host, the rest in a guest that sees it through hostfs.
func cookSnapshot(t *testing.T, r *recipe) {
	f := need(t, debian64K)
	r.serveAs(t, "https://example.org/debian.cloop", f.image)
	dir := r.mountpoint(t, "/media/image")
	r.run(t, "", "")
	boot(t, umlCommand(filepath.Join(t.TempDir(), "cow")+","+diskOf(dir)), `
		mount -t proc proc /proc
		mount -t sysfs sysfs /sys
		mkdir -p /lib/modules
		mount -t hostfs -o /usr/lib/uml/modules modules /lib/modules
		modprobe loop
		modprobe dm-snapshot
		export DM_DISABLE_UDEV=1 # none is running
		mount -t tmpfs tmpfs /tmp
		mkdir -p `+dir+`
		mount -t hostfs -o `+dir+` image `+dir+`
		cd /tmp
		`+r.next(t)+`
		echo changed >/mnt/etc/hostname
		umount /mnt
		mount /dev/mapper/guest1 /mnt
		test "$(cat /mnt/etc/hostname)" = changed
		dmsetup status guest1
		umount /mnt
		dmsetup remove guest1
		losetup --detach-all
		cd /
		umount `+dir+` /lib/modules /tmp /sys /proc
`)
	must(t, "cmp", diskOf(dir), f.raw)
	umount(t, dir)
}

func cookOpt(t *testing.T, r *recipe) {
	f := need(t, small)
	r.serveAs(t, "https://example.org/opt-2.cloop", f.image)
	image := r.mountpoint(t, "/media/opt-2")
	opt := r.directory(t, "/opt")
	old := filepath.Join(opt, "old")
	if err := os.WriteFile(old, []byte("what was there"), 0o644); err != nil {
		t.Fatal(err)
	}
	reader := start(t, "sh", "-c", `exec <"$1"; until test -e "$1.end"; do sleep 0.01; done; cat`, "sh", old)
	r.run(t, "test -e /opt/text && test ! -e /opt/old", "")
	must(t, "sh", "-c", `cd "$1" && sha256sum --quiet -c "$2"`, "sh", opt, f.files)
	r.run(t, "test -e /opt/old", "")
	must(t, "touch", old+".end")
	if got := output(t, reader); got != "what was there" {
		t.Errorf("a program that runs reads %q of the file that was covered", got)
	}
	if mounted(image) {
		t.Errorf("%s is mounted", image)
	}
}

func cookCopies(t *testing.T, r *recipe) {
	f := need(t, small)
	r.serveAs(t, "https://example.org/debian.cloop", f.image)
	r.at("/media/image", mount(t, r.own("https://example.org/debian.cloop")))
	must(t, "sh", "-e", "-c", r.own(`
		cd "$1"
		for guest in guest1 guest2; do
			qemu-img create -q -f qcow2 -F raw -b /media/image/disk.img $guest.qcow2
			qemu-io -f qcow2 -c "write -P 7 1M 64K" $guest.qcow2 >/dev/null
		done
		cp "$2" changed
		qemu-io -f raw -c "write -P 7 1M 64K" changed >/dev/null`), "sh", r.dir, f.raw)
	r.run(t, `
		for copy in extracted.raw copied.raw; do
			cmp $copy /media/image/disk.img
			test $(($(stat -c %b $copy) * 512)) -lt $(stat -c %s $copy)
		done
		qemu-img compare -f raw -F qcow2 /media/image/disk.img copied.qcow2`, "")
	r.run(t, `
		cloopfs umount /media/image
		for guest in guest1 guest2; do qemu-img compare -f raw -F qcow2 changed $guest.qcow2; done
		! qemu-img info guest1.qcow2 | grep backing`, "")
}
