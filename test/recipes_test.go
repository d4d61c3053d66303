//go:build integration

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// recipes are the tests of docs/guests.md: for each of its sections with
// commands, a test that executes them.
var recipes = map[string]func(*testing.T, *recipe){
	"One read-only mount for many guests":  cookManyGuests,
	"UML on a writable mount":              cookWritableUML,
	"QEMU on a writable mount":             cookWritableQEMU,
	"A loop device that can be written to": cookWritableLoop,
	"LVM above a loop device":              cookLVM,
	"A live ISO":                           cookLiveISO,
	"dm-snapshot above a loop device":      cookSnapshot,
	"Another /opt":                         cookOpt,
	"Copies":                               cookCopies,
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
			attached.Store(device, file)
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
	// Each guest has its own disk.
	boot(t, fmt.Sprintf("qemu-system-x86_64 -m 1024 -drive file=%s/guest1.qcow2,if=virtio", r.dir), checkScript)
	must(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", filepath.Join(r.dir, "guest2.qcow2"), f.raw)
	umount(t, dir)
}

func cookWritableUML(t *testing.T, r *recipe) {
	f := need(t, debian64K)
	r.serveAs(t, "https://example.org/debian.cloop", f.image)
	dir := r.mountpoint(t, "/media/image")
	if out := r.run(t, "", goneScript+writeScript); !strings.Contains(out, guestMark) {
		t.Fatalf("guest: without the mark %s: %q", guestMark, out)
	}
	r.run(t, "", "")
	mountAt(t, filepath.Join(r.dir, "changed.cloop"), dir)
	boot(t, umlCommand(filepath.Join(r.dir, "cow")+","+diskOf(dir)), checkScript)
	umount(t, dir)
	mountAt(t, r.own("https://example.org/debian.cloop"), dir, "--overlay", filepath.Join(r.dir, "overlay1"))
	boot(t, umlCommand(diskOf(dir)), goneScript)
	umount(t, dir)
}

func cookWritableQEMU(t *testing.T, r *recipe) {
	f := need(t, debian64K)
	r.serveAs(t, "https://example.org/debian.cloop", f.image)
	dir := r.mountpoint(t, "/media/image")
	script := goneScript + writeScript + `
		head -c 64M /dev/urandom >/root/noise
		sync
		rm /root/noise
		sync
		mount -t proc proc /proc
		mount -t sysfs sysfs /sys
		fstrim -v /
		umount /sys /proc
`
	if out := r.run(t, "", script); !strings.Contains(out, guestMark) {
		t.Fatalf("guest: without the mark %s: %q", guestMark, out)
	}
	must(t, "sh", "-c", `test $(du --summarize --block-size=1M "$1" | cut -f1) -lt 32`, "sh", filepath.Join(r.dir, "overlay2"))
	mountAt(t, r.own("https://example.org/debian.cloop"), dir, "--overlay", filepath.Join(r.dir, "overlay2"))
	boot(t, qemuCommand(diskOf(dir)), checkScript)
	must(t, "e2fsck", "-fn", diskOf(dir))
	umount(t, dir)
}

func cookWritableLoop(t *testing.T, r *recipe) {
	f := need(t, debian64K)
	r.serveAs(t, "https://example.org/debian.cloop", f.image)
	dir := r.mountpoint(t, "/media/image")
	r.directory(t, "/mnt")
	r.run(t, "", "")
	mountAt(t, r.own("https://example.org/debian.cloop"), dir, "--overlay", filepath.Join(r.dir, "overlay3"))
	must(t, "e2fsck", "-fn", diskOf(dir))
	tree := mountLoop(t, diskOf(dir))
	if got := must(t, "cat", filepath.Join(tree, "etc/hostname")); got != "changed\n" {
		t.Errorf("/etc/hostname is %q", got)
	}
	must(t, "umount", tree)
	umount(t, dir)
}

// The partitions of a writable disk are those of a loop device on it. A guest
// makes that: the kernel of the machine may know no partition tables.
func TestGuestPartitions(t *testing.T) {
	d, f := needDisk(t, gptDisk), need(t, debian64K)
	url := serveFile(t, d.image)
	dir, overlay := makeDir(t), filepath.Join(t.TempDir(), "overlay")
	mountAt(t, url, dir, "--overlay", overlay)
	boot(t, umlCommand(filepath.Join(t.TempDir(), "cow")+","+f.raw), hostScript(dir)+`
		device=$(losetup --find --show --partscan `+diskOf(dir)+`)
		for number in 1 3 4; do
			mount ${device}p$number /mnt
			test "$(cat /mnt/name)" = $number
			echo $number more >/mnt/name
			umount /mnt
		done
		losetup --detach $device
`)
	umount(t, dir)
	for _, p := range d.parts {
		mountAt(t, url, dir, "--overlay", overlay, "--partition", strconv.Itoa(p.number))
		tree := mountLoop(t, diskOf(dir))
		if got, want := must(t, "cat", filepath.Join(tree, "name")), fmt.Sprintf("%d more\n", p.number); got != want {
			t.Errorf("partition %d: the file in it says %q, want %q", p.number, got, want)
		}
		must(t, "umount", tree)
		umount(t, dir)
	}
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

// hostScript makes a guest of UML one that has device mapper and loop devices,
// and sees dir at the same place as the host. The commands of the host's LVM run
// there, too.
func hostScript(dir string) string {
	return fmt.Sprintf(`
		mount -t proc proc /proc
		mount -t sysfs sysfs /sys
		mkdir -p /lib/modules /host
		mount -t hostfs -o /usr/lib/uml/modules modules /lib/modules
		modprobe loop
		modprobe dm-snapshot
		mount -t tmpfs tmpfs /tmp
		mount -t tmpfs tmpfs /run
		mount -t hostfs -o / host /host
		mkdir -p %[1]s
		mount -t hostfs -o %[1]s dir %[1]s
		export DM_DISABLE_UDEV=1 # none is running
		for tool in pvcreate vgcreate lvcreate vgchange; do
			eval "$tool() { /host/lib64/ld-linux-x86-64.so.2 --library-path /host/lib/x86_64-linux-gnu /host/sbin/lvm $tool --quiet --yes \"\$@\"; }"
		done
		cd /tmp
`, dir)
}

// The mount is on the host, the rest in a guest that sees it through hostfs.
func cookSnapshot(t *testing.T, r *recipe) {
	f := need(t, debian64K)
	r.serveAs(t, "https://example.org/debian.cloop", f.image)
	dir := r.mountpoint(t, "/media/image")
	r.run(t, "", "")
	boot(t, umlCommand(filepath.Join(t.TempDir(), "cow")+","+diskOf(dir)), hostScript(dir)+r.next(t)+`
		echo changed >/mnt/etc/hostname
		umount /mnt
		mount /dev/mapper/guest1 /mnt
		test "$(cat /mnt/etc/hostname)" = changed
		umount /mnt
		dmsetup remove guest1
		losetup --detach "$origin"
		losetup --detach "$changes"
`)
	umount(t, dir)
}

// As above; the disk with the volume group is made in a guest as well.
func cookLVM(t *testing.T, r *recipe) {
	f := need(t, debian64K)
	work := t.TempDir()
	system, raw, image := filepath.Join(work, "cow")+","+f.raw, filepath.Join(work, "lvm.raw"), filepath.Join(work, "lvm.cloop")
	must(t, "truncate", "--size=64M", raw)
	boot(t, umlCommand(system)+" ubd2="+raw, hostScript(work)+`
		pvcreate /dev/ubdc
		vgcreate vg /dev/ubdc
		lvcreate --name root --size 40M vg
		mke2fs -q -t ext4 /dev/vg/root
		vgchange --activate n vg
		sync
`)
	must(t, "create_compressed_fs", "-q", "-B", "64K", "-L", "1", raw, image)

	r.serveAs(t, "https://example.org/lvm.cloop", image)
	dir := r.mountpoint(t, "/media/image")
	r.run(t, "", "")
	guest := hostScript(dir) + r.next(t)
	for _, script := range []string{guest + "seq 10000 >/mnt/numbers", guest + "seq 10000 | cmp - /mnt/numbers"} {
		boot(t, umlCommand(system), script+`
		umount /mnt
		vgchange --activate n vg
		losetup --detach "$device"
`)
	}
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
