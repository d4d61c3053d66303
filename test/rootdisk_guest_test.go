//go:build integration

package test

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// initrdScript makes $1, an initial file system in which the program under test, $2, mounts
// the root disk; guests' tools are in $3, their kernel in $4. It mounts the image at $5.
const initrdScript = `
	dir=$(mktemp -d)
	cp -a "$3/initrd/." "$dir"
	cp "$2" "$dir/bin/cloopfs"
	mkdir -p "$dir/run" "$dir/newroot"
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
		mkdir /run/image /run/tmp
		TMPDIR=/run/tmp cloopfs mount --root-disk --timeout 0 --cache-size 0 --ephemeral "$5" /run/image
		mount -t ext4 -o loop /run/image/disk.img /newroot
		for dir in proc dev run; do mount --move /\$dir /newroot/\$dir; done
		exec switch_root /newroot /bin/sh -c "sh -ex /dev/vda && echo o >/proc/sysrq-trigger; sleep 100"
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

// A machine whose root file system is on a mount of its own: started in the initial file
// system, which then is emptied, the process gets what --root-disk asks for, and serves
// through an outage of its server.
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
	must(t, "sh", "-e", "-c", initrdScript, "sh", initrd, cloopfs, tools, kernel, u.String())

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
