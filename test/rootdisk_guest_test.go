//go:build integration

package test

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// initrdScript makes $1, an initial file system with the program under test, $2; guests'
// tools are in $3, their kernel in $4. Its last step is the shell script $5.
const initrdScript = `
	dir=$(mktemp -d)
	cp -a "$3/initrd/." "$dir"
	cp "$2" "$dir/bin/cloopfs"
	mkdir -p "$dir/run" "$dir/newroot"
	printf '%s\n' "$5" >"$dir/boot"
	n=30
	for module in failover net_failover virtio_net loop fuse; do
		file=$(find "$4/lib/modules" -name $module.ko)
		[ -z "$file" ] || cp "$file" "$dir/$n-$module.ko" # else it is in the kernel
		n=$((n + 1))
	done
	cat >"$dir/init" <<-END
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		export PATH=/bin
		set -ex
		mount -t proc proc /proc
		mount -t devtmpfs dev /dev
		mount -t tmpfs run /run
		for module in /*.ko; do insmod \$module; done
		for i in \$(seq 100); do ifconfig eth0 >/dev/null 2>&1 && break; sleep 0.1; done
		ifconfig eth0 10.0.2.15 up
		. /boot
	END
	(cd "$dir" && find . | busybox cpio -o -H newc | gzip -1) >"$1"
	rm -r "$dir"`

// rootScript makes the root file system in $1; $2 is the program under test.
const rootScript = `
	mkdir -p "$1/bin" "$1/proc" "$1/dev" "$1/run" "$1/sys" "$1/tmp"
	cp /bin/busybox "$1/bin/"
	cp "$2" "$1/bin/cloopfs"
	for name in $(busybox --list | grep -vx busybox); do ln -s busybox "$1/bin/$name"; done
	for n in 1 2 3 4; do head -c 4M /dev/urandom >"$1/file$n"; done
	(cd "$1" && sha256sum file? >sums)`

// A machine whose root file system is on a mount of its own, as docs/root-disk.md has it:
// started in the initial file system, which then is emptied, the process gets what
// --root-disk asks for, and serves through the outages of its server; detached by a signal, too.
func TestRootDiskOfAGuest(t *testing.T) {
	tools, err := guestTools()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := cloudKernel()
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	root, disk, image := filepath.Join(tmp, "root"), filepath.Join(tmp, "disk"), filepath.Join(tmp, "image")
	must(t, "sh", "-e", "-c", rootScript, "sh", root, cloopfs)
	must(t, "mke2fs", "-q", "-t", "ext4", "-d", root, disk, "96M")
	must(t, cloopfs, "create", disk, image)
	srv, fileURL := serve(t, nil)
	if err := srv.AddFile("disk.cloop", image); err != nil {
		t.Fatal(err)
	}
	r := newRelay(t, fileURL)
	u, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "10.0.2.2:" + u.Port() // this machine, from inside
	initrd := filepath.Join(tmp, "initrd.gz")
	steps := fences.FindStringSubmatch(string(readAll(t, "../docs/root-disk.md")))[1]
	for old, now := range map[string]string{
		"http://192.0.2.1/debian.cloop": u.String(),
		"/sbin/init":                    `/bin/sh -c "sh -ex /dev/vda && echo o >/proc/sysrq-trigger; sleep 100"`,
	} {
		if strings.Count(steps, old) != 1 {
			t.Fatalf("docs/root-disk.md says %q, want %s in it", steps, old)
		}
		steps = strings.Replace(steps, old, now, 1)
	}
	must(t, "sh", "-e", "-c", initrdScript, "sh", initrd, cloopfs, tools, kernel, steps)

	cmd := exec.Command("qemu-system-x86_64", "-m", "512", "-nic", "user,model=virtio-net-pci", "-initrd", initrd)
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"))
	cmd.Path = filepath.Join(tools, "qemu-system-x86_64")
	p := withGuests(t, cmd, `
		pid=$(pidof @cloopfs || pgrep -f '^@cloopfs mount')
		test "$(cat /proc/$pid/oom_score_adj)" = -1000
		for stat in /proc/$pid/task/*/stat; do
			set -- $(sed 's/.*) //' $stat)
			test $(($7 & 0x180000)) = $((0x180000))
		done
		test -z "$(ls /proc/$pid/root/bin)"
		/bin/cloopfs status /run/image
		sha256sum -c sums
		echo 3 >/proc/sys/vm/drop_caches
		echo written >/new
		sync
		sleep 3
		sha256sum -c sums
		test "$(cat /new)" = written
		kill -TERM $pid
		while grep fuse.cloopfs /proc/mounts; do sleep 1; done
		echo 3 >/proc/sys/vm/drop_caches
		sha256sum -c sums
	`)
	// Its server is gone for a moment every few seconds.
	for outages := 0; ; outages++ {
		if p.endsWithin(3 * time.Second) {
			t.Logf("%d outages", outages)
			break
		}
		r.stop()
		time.Sleep(soon)
		r.resume(t)
	}
	checkGuest(t, p)
}

// The service in docs/root-disk.md is one that systemd understands, and says when the disk
// can be used.
func TestRootDiskUnit(t *testing.T) {
	_, unit, found := strings.Cut(string(readAll(t, "../docs/root-disk.md")), "```ini\n")
	unit, _, end := strings.Cut(unit, "```")
	if !found || !end {
		t.Fatal("docs/root-disk.md has no service")
	}
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, fileURL := serve(t, s.image)
	dir := makeDir(t)
	unit = strings.NewReplacer("/usr/bin/cloopfs", cloopfs, "http://192.0.2.1/debian.cloop", fileURL, "/run/image", dir).Replace(unit)
	file := filepath.Join(t.TempDir(), "root-disk.service")
	if err := os.WriteFile(file, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	if said := must(t, "sh", "-c", `systemd-analyze verify "$1" 2>&1`, "sh", file); said != "" {
		t.Errorf("systemd-analyze says %q", said)
	}

	_, line, _ := strings.Cut(unit, "\nExecStart=")
	line, _, _ = strings.Cut(line, "\n")
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	args := strings.Fields(line)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	p := startCmd(t, cmd)
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 100)
	n, err := conn.Read(said)
	if err != nil || string(said[:n]) != "READY=1" {
		t.Fatalf("systemd is told %q, %v; want READY=1", said[:n], err)
	}
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if r := p.result(t); r.code != 0 {
		t.Errorf("mount: %v", r)
	}
}
