//go:build integration

package test

import (
	"path/filepath"
	"sync"
)

// bootMark is what the system on the test's live disc prints when all is well.
const bootMark = "LIVE-SYSTEM-IS-WELL"

// liveISO is the path of a live disc: isolinux, Debian's kernel for virtual
// machines, and an initial file system that compares the files on the disc with
// what they were.
var liveISO = sync.OnceValues(func() (string, error) {
	return kernelFixture("live.iso", func(out, kernel string) error {
		return command("sh", "-e", "-c", liveScript, "sh", out, kernel, bootMark)
	})
})

// cloudKernel is the path of a directory with Debian's kernel for virtual
// machines in boot and its modules in lib.
var cloudKernel = sync.OnceValues(func() (string, error) { return kernelFixture("cloud-kernel", nil) })

// kernelFixture makes, as far as they are not there, the kernel and a file from
// it. Without a build for that it is the kernel alone.
func kernelFixture(name string, build func(out, kernel string) error) (string, error) {
	dir, err := filepath.Abs(fixtures)
	if err != nil {
		return "", err
	}
	if err := command("mkdir", "-p", dir); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	kernel, file := filepath.Join(dir, "cloud-kernel"), filepath.Join(dir, name)
	steps := []step{{kernel, func(out string) error { return command("sh", "-e", "-c", kernelScript, "sh", out) }}}
	if build != nil {
		steps = append(steps, step{file, func(out string) error { return build(out, kernel) }})
	}
	return file, chain(steps...)
}

// kernelScript unpacks the kernel package. To install it would rebuild the
// machine's own initial file systems.
const kernelScript = `
	download() {
		package=$(apt-cache depends --important linux-image-cloud-amd64 | sed -n 's/.*Depends: //p')
		(cd "$1" && apt-get download -q "$package")
	}
	mkdir "$1"
	download "$1" || { apt-get update -q; download "$1"; }
	dpkg -x "$1"/*.deb "$1"
	rm "$1"/*.deb`

// liveScript makes the ISO file $1 from the kernel in $2; $3 is the mark.
const liveScript = `
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	root=$work/root
	initrd=$work/initrd
	mkdir -p "$root/isolinux" "$root/live" "$initrd/bin" "$initrd/dev" "$initrd/proc" "$initrd/cd"
	head -c 4M /dev/urandom >"$root/live/a file of noise"
	seq 200000 >"$root/live/numbers"
	(cd "$root" && sha256sum live/*) >"$initrd/sums"

	cp /bin/busybox "$initrd/bin/"
	n=10
	for module in scsi_common scsi_mod libata ata_piix cdrom sr_mod isofs; do
		cp "$(find "$2/lib/modules" -name $module.ko)" "$initrd/$n-$module.ko"
		n=$((n + 1))
	done
	cat >"$initrd/init" <<-END
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		export PATH=/bin
		mount -t proc proc /proc
		mount -t devtmpfs dev /dev
		for module in /*.ko; do insmod \$module; done
		for i in \$(seq 100); do test -b /dev/sr0 && break; sleep 0.1; done
		mount -t iso9660 -o ro /dev/sr0 /cd
		cd /cd && sha256sum -c /sums && echo $3
		echo o >/proc/sysrq-trigger
		sleep 100
	END
	chmod +x "$initrd/init"
	(cd "$initrd" && find . | busybox cpio -o -H newc | gzip -1) >"$root/live/initrd"

	cp "$2"/boot/vmlinuz-* "$root/live/linux"
	cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$root/isolinux/"
	cat >"$root/isolinux/isolinux.cfg" <<-END
		DEFAULT live
		LABEL live
			LINUX /live/linux
			INITRD /live/initrd
			APPEND console=ttyS0 quiet panic=1
	END
	xorriso -as mkisofs -quiet -r -J -iso-level 3 -b isolinux/isolinux.bin -c isolinux/boot.cat \
		-no-emul-boot -boot-load-size 4 -boot-info-table -o "$1" "$root"`
