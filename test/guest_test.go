//go:build integration

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// guestMark is what a guest prints when its script has succeeded.
const guestMark = "GUEST-IS-WELL"

// guestTools is a directory with a linux.uml and a qemu-system-x86_64 that are
// those of this machine, told what every guest of the tests needs: what it shall
// do, a kernel, and a console that the test can read. With a CD a guest boots from
// that. Any other runs the shell script in the file $GUEST_SCRIPT in its root file
// system, which is its first disk, and powers itself off. UML does so in place of
// init, or if $GUEST_INIT is script, the script does.
var guestTools = sync.OnceValues(func() (string, error) {
	kernel, err := cloudKernel()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(scratch, "guest-tools")
	return dir, command("sh", "-e", "-c", guestScript, "sh", dir, kernel, cloopfs)
})

// guestScript makes the directory $1 from the kernel in $2; $3 is the program
// under test.
const guestScript = `
	mkdir -p "$1" "$1/uml" "$1/initrd/bin" "$1/initrd/dev" "$1/initrd/proc" "$1/initrd/root"
	ln -s "$3" "$1/cloopfs"
	gcc -O2 -shared -fPIC -o "$1/uml-ptrace.so" testdata/uml-ptrace.c
	cat >"$1/linux.uml" <<-END
		#!/bin/sh
		init='-c "exec >/dev/console 2>&1; /bin/sh -ex /dev/ubdb; mount -o remount,ro /; mount -t proc proc /proc; echo o >/proc/sysrq-trigger; sleep 100"'
		[ "\$GUEST_INIT" != script ] || init='-e /dev/ubdb'
		set -- "\$@" quiet init=/bin/sh -- "\$init"
		exec env --unset=TMPDIR LD_PRELOAD="$1/uml-ptrace.so" /usr/bin/linux.uml uml_dir="$1/uml" ubd1r="\$GUEST_SCRIPT" "\$@" </dev/null
	END
	cat >"$1/qemu-system-x86_64" <<-END
		#!/bin/sh
		set -- -cpu max -nographic -no-reboot -nic none "\$@"
		case " \$* " in *" -cdrom "*) exec /usr/bin/qemu-system-x86_64 "\$@" </dev/null ;; esac
		exec /usr/bin/qemu-system-x86_64 -kernel "$2"/boot/vmlinuz-* -initrd "$1/initrd.gz" \
			-append "console=ttyS0 quiet panic=1" "\$@" -drive file="\$GUEST_SCRIPT",format=raw,if=virtio,readonly=on </dev/null
	END
	chmod +x "$1/linux.uml" "$1/qemu-system-x86_64"

	cp /bin/busybox "$1/initrd/bin/"
	n=10
	for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk crc16 crc32c_generic libcrc32c mbcache jbd2 ext4; do
		file=$(find "$2/lib/modules" -name $module.ko)
		[ -z "$file" ] || cp "$file" "$1/initrd/$n-$module.ko" # else it is in the kernel
		n=$((n + 1))
	done
	cat >"$1/initrd/init" <<-END
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		export PATH=/bin
		mount -t proc proc /proc
		mount -t devtmpfs dev /dev
		for module in /*.ko; do insmod \$module; done
		for i in \$(seq 100); do test -b /dev/vdb && break; sleep 0.1; done
		mount -t ext4 /dev/vda /root
		mount -t devtmpfs dev /root/dev
		chroot /root /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -ex /dev/vdb
		umount /root/dev
		umount /root
		echo o >/proc/sysrq-trigger
		sleep 100
	END
	chmod +x "$1/initrd/init"
	(cd "$1/initrd" && find . | busybox cpio -o -H newc | gzip -1) >"$1/initrd.gz"`

// systemdScript has UML boot the whole system, by systemd, which runs the rest of the
// script when it is done. It is to be run as $GUEST_INIT.
const systemdScript = `
if [ $$ = 1 ]; then
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir -p /run/systemd/system/multi-user.target.wants
	ln -s ../script.service /run/systemd/system/multi-user.target.wants/
	cat >/run/systemd/system/script.service <<-END
		[Unit]
		After=multi-user.target
		SuccessAction=poweroff-force
		FailureAction=poweroff-force
		[Service]
		Type=oneshot
		ExecStart=/bin/sh -ex /dev/ubdb
		StandardOutput=tty
		StandardError=tty
		TTYPath=/dev/console
	END
	exec /sbin/init
fi
`

// withGuests is cmd in an environment where it starts guests that run a script,
// and cloopfs is the program under test. They die with the test.
func withGuests(t testing.TB, cmd *exec.Cmd, script string) *process {
	t.Helper()
	tools, err := guestTools()
	if err != nil {
		t.Fatalf("make the guests' tools: %v", err)
	}
	// The mark is not on the kernel's command line, which guests print.
	script += "\ncd /\nsync\necho " + guestMark + "\n"
	// It is a disk: whole sectors, and as many as the kernel looks at for partitions.
	script += strings.Repeat("\n", 64*kib-len(script)%(64*kib))
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Environ(), "PATH="+tools+":"+os.Getenv("PATH"), "GUEST_SCRIPT="+file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := startCmd(t, cmd)
	t.Cleanup(func() { _ = syscall.Kill(-p.pid(), syscall.SIGKILL) }) // it may have ended
	return p
}

// boot starts a guest by a shell command and returns what it has printed when its
// script has succeeded.
func boot(t *testing.T, command, script string, env ...string) string {
	t.Helper()
	cmd := exec.Command("sh", "-e", "-c", "exec "+command)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), env...)
	return checkGuest(t, withGuests(t, cmd, script))
}

// checkGuest waits for the end of a guest, whose script must succeed.
func checkGuest(t *testing.T, p *process) string {
	t.Helper()
	r := p.result(t)
	if r.code != 0 || !strings.Contains(r.stdout, guestMark) {
		t.Fatalf("guest: exit status %d, without the mark %s:\n%s\n%s", r.code, guestMark, r.stdout, r.stderr)
	}
	return r.stdout
}

// umlCommand starts UML with a disk as its root.
func umlCommand(disk string) string {
	return fmt.Sprintf("linux.uml mem=512M ubd0=%s root=/dev/ubda rw con=null con0=fd:0,fd:1", disk)
}

// qemuCommand starts QEMU with a raw disk as its root.
func qemuCommand(disk string) string {
	return fmt.Sprintf("qemu-system-x86_64 -m 1024 -drive file=%s,format=raw,if=virtio", disk)
}

// Scripts for guests.
const (
	// writeScript writes a few hundred files, a directory and a large file.
	writeScript = `
		mkdir /root/written
		for i in $(seq 300); do echo "this is file $i" >/root/written/$i; done
		seq 100000 >/root/written/numbers
		cd /root/written && sha256sum * >/root/written.sums
		sync
`
	// checkScript succeeds if all of that is there.
	checkScript = `
		cd /root/written
		sha256sum --quiet -c /root/written.sums
		test $(ls | wc -l) = 301
`
	// goneScript succeeds if nothing of it is there.
	goneScript = `test ! -e /root/written && test ! -e /root/written.sums
`
)

// Ten guests with a qcow2 file each share a read-only mount: that all of them read
// their whole disks costs little more than if one did. The server is asked for
// each byte about once, and each block is decoded about once, as the kernel keeps
// the disk's pages for all. (The machine's memory has to have room for the disk.)
func TestGuestsShareOneMount(t *testing.T) {
	const guests = 10
	f := need(t, debian1M)
	srv, url := serve(t, nil)
	if err := srv.AddFile("disk.cloop", f.image); err != nil {
		t.Fatal(err)
	}
	dir := mount(t, url, "--timeout", "0")
	begin := time.Now()
	var procs []*process
	for i := range guests {
		overlay := filepath.Join(t.TempDir(), fmt.Sprintf("guest%d.qcow2", i))
		must(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", diskOf(dir), overlay)
		procs = append(procs, start(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", overlay, f.raw))
	}
	for _, p := range procs {
		if r := p.result(t); r.code != 0 {
			t.Errorf("%s: %v", p.name, r)
		}
	}

	st, sent := statusOf(t, dir), srv.Stats().Bytes
	image, disk := sizeOf(t, f.image), st.DiskSize
	// Loads counts the blocks that are decoded, but not for reads of a whole block.
	// There are none: the kernel asks for 128 KiB at most. Blocks of zeros are holes to
	// QEMU, for which it does not ask.
	used := make(map[int64]bool)
	for _, off := range usedPages(t, f.raw) {
		used[off/mib] = true
	}
	blocks := int64(len(used))
	t.Logf("%d guests have read %d MB each in %v: of the image %.3f sent, of the disk %.3f read by the kernel, of its blocks with data %.3f decoded",
		guests, disk/1e6, time.Since(begin), float64(sent)/float64(image), float64(st.Reads.Bytes)/float64(disk), float64(st.Memory.Loads)/float64(blocks))
	if float64(sent) > 1.05*float64(image) {
		t.Errorf("the server has sent %d bytes of an image of %d", sent, image)
	}
	if float64(st.Reads.Bytes) > 1.05*float64(disk) {
		t.Errorf("the kernel has read %d bytes of a disk of %d", st.Reads.Bytes, disk)
	}
	if st.Memory.Loads < blocks || float64(st.Memory.Loads) > 1.05*float64(blocks) {
		t.Errorf("%d blocks were decoded, of %d", st.Memory.Loads, blocks)
	}
	umount(t, dir)
}

// A COW file of UML's own lies on a read-only mount. UML knows the disk again
// after unmount and mount: by its size and mtime.
func TestUMLCowFile(t *testing.T) {
	f := need(t, debian64K)
	url := nginx.start(t, filepath.Dir(f.image)) + "/" + filepath.Base(f.image)
	dir := makeDir(t)
	cow := filepath.Join(t.TempDir(), "cow")
	for _, script := range []string{goneScript + writeScript, checkScript} {
		mountAt(t, url, dir, "--timeout", "0")
		boot(t, umlCommand(cow+","+diskOf(dir)), script)
		t.Logf("%d bytes fetched", statusOf(t, dir).Fetched.Bytes)
		umount(t, dir)
	}
}

// What a guest writes is kept in the overlay, whether it ends well or cloopfs is
// killed under it; it is gone once the overlay is discarded, and in a new image
// once it is committed.
func TestGuestWrites(t *testing.T) {
	f := need(t, debian64K)
	url := nginx.start(t, filepath.Dir(f.image)) + "/" + filepath.Base(f.image)
	dir, overlay := makeDir(t), filepath.Join(t.TempDir(), "overlay")
	remount := func() { mountAt(t, url, dir, "--timeout", "0", "--overlay", overlay) }

	// A whole boot, by systemd.
	remount()
	boot(t, umlCommand(diskOf(dir)), systemdScript+goneScript+writeScript, "GUEST_INIT=script")
	umount(t, dir)

	// The next ones lose their disk once they have synced. UML does not tell the disk
	// when it syncs (docs/guests.md), and has to sync every write.
	synchronous := strings.Replace(umlCommand(diskOf(dir)), "ubd0=", "ubd0s=", 1)
	remount()
	dieSynced(t, dir, synchronous, checkScript+moreScript("uml"))
	remount()
	dieSynced(t, dir, qemuCommand(diskOf(dir)), checkScript+checkMoreScript("uml")+moreScript("qemu"))

	remount()
	boot(t, umlCommand(diskOf(dir)), checkScript+checkMoreScript("uml")+checkMoreScript("qemu"))
	must(t, "e2fsck", "-fn", diskOf(dir))
	umount(t, dir)

	// An image of it boots elsewhere, without the overlay.
	changed := filepath.Join(t.TempDir(), "changed.cloop")
	must(t, cloopfs, "overlay", "commit", overlay, changed)
	t.Logf("an image of %d bytes has become one of %d", sizeOf(t, f.image), sizeOf(t, changed))
	must(t, cloopfs, "overlay", "discard", overlay)
	elsewhere := mount(t, lighttpd.start(t, filepath.Dir(changed))+"/"+filepath.Base(changed), "--timeout", "0", "--ephemeral")
	boot(t, umlCommand(diskOf(elsewhere)), checkScript+checkMoreScript("uml")+checkMoreScript("qemu"))
	must(t, "e2fsck", "-fn", diskOf(elsewhere))
	umount(t, elsewhere)

	// Where it was discarded nothing is left of it.
	remount()
	boot(t, umlCommand(diskOf(dir)), goneScript)
	umount(t, dir)
}

// moreScript writes files to a directory, syncs, and then writes until it dies.
func moreScript(name string) string {
	return fmt.Sprintf(`
		mkdir /root/%[1]s
		for i in $(seq 300); do echo "this is file $i" >/root/%[1]s/$i; done
		cd /root/%[1]s && sha256sum * >/root/%[1]s.sums
		sync
		echo SYNCED
		while true; do echo more >>/root/%[1]s/more; done
`, name)
}

// checkMoreScript succeeds if what was written before the sync is there.
func checkMoreScript(name string) string {
	return fmt.Sprintf(`
		cd /root/%[1]s && sha256sum --quiet -c /root/%[1]s.sums
		test $(wc -l </root/%[1]s.sums) = 300
`, name)
}

// dieSynced starts a guest by a shell command and kills the process that serves
// its disk at dir, then the guest, when it has synced.
func dieSynced(t *testing.T, dir, command, script string) {
	t.Helper()
	p, _ := bootUntil(t, "SYNCED", command, script)
	for _, pid := range []int{daemon(t, dir), -p.pid()} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	p.result(t)
	awaitDead(t, dir)
}

// bootUntil starts a guest by a shell command and returns when it has printed a
// word. said is all that it has printed until then, or later.
func bootUntil(t *testing.T, word, command, script string) (p *process, said func() string) {
	t.Helper()
	console, err := os.Create(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	said = func() string {
		raw, err := os.ReadFile(console.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	cmd := exec.Command("sh", "-c", "exec "+command)
	cmd.Stdout = console
	p = withGuests(t, cmd, script)
	for deadline := time.Now().Add(limit); !strings.Contains(said(), word); time.Sleep(10 * time.Millisecond) {
		if !p.running() || time.Now().After(deadline) {
			t.Fatalf("the guest does not say %s: %s", word, said())
		}
	}
	return p, said
}

// A guest on a mount without a timeout waits while its server hangs, and goes on.
func TestGuestWaitsForServer(t *testing.T) {
	f := need(t, debian64K)
	srv, url := serve(t, nil)
	if err := srv.AddFile("disk.cloop", f.image); err != nil {
		t.Fatal(err)
	}
	dir := mount(t, url, "--timeout", "0")
	guest, said := bootUntil(t, "READING", umlCommand(filepath.Join(t.TempDir(), "cow")+","+diskOf(dir)), `
		echo READING
		cat /usr/bin/* /usr/lib/x86_64-linux-gnu/*.so.* >/dev/null
`)
	hang(t, srv, testserver.HangMidBody)
	waitFor(t, "the guest waits", func() bool { return statusOf(t, dir).Reads.Waiting > 0 })
	if guest.endsWithin(5 * time.Second) {
		t.Errorf("the guest has ended while its disk hangs: %s", said())
	}
	unhang(srv)
	if r := guest.result(t); r.code != 0 || !strings.Contains(said(), guestMark) {
		t.Errorf("guest: exit status %d, without the mark %s: %s", r.code, guestMark, said())
	}
	umount(t, dir)
}
