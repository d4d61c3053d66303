package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/control"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/mounts"
)

// mountOptions is everything that the process which serves a mount has to
// know. It travels to the background process as a gob:
// paths are bytes.
type mountOptions struct {
	DiskOptions
	Mountpoint string // absolute
	Partition  int    // 0: the whole disk
	Describe   bool   // somebody reads what the disk is
	RootDisk   bool   // the machine's own root lies on the disk
	AllowOther bool
	UID, GID   uint32
	Mode       uint32
}

func newMountCmd() *cobra.Command {
	var o mountOptions
	var foreground bool
	var mode string
	options := new(optionsValue)
	cmd := &cobra.Command{
		Use:   "mount [flags] SOURCE MOUNTPOINT",
		Short: "Present the disk in an image as MOUNTPOINT/disk.img",
		Long: `Present the disk that the image at SOURCE decodes to as MOUNTPOINT/disk.img.
The command returns when the disk can be read, and serves on in the background.
SOURCE is the URL, or the path, of a cloop image or of a disk as it is (an ISO file,
say); URL#PATH is a file inside an ISO 9660 image. If the disk has a partition table
there are also disk.img.p1, disk.img.p2 and so on.
With --overlay or --ephemeral the disk can be written to; then it is disk.img alone.`,
		Example: `  cloopfs mount https://example.org/KNOPPIX /media/image
  mount -o loop,ro /media/image/disk.img /mnt
  cloopfs mount 'https://example.org/knoppix.iso#KNOPPIX/KNOPPIX' /media/inner
  umount /mnt; cloopfs umount /media/image`,
		Args:              args(cobra.ExactArgs(2)),
		ValidArgsFunction: completeArgs(completeFile, completeDir),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			o.Mountpoint = args[1]
			if options.readOnly && o.Write.writable() {
				return cli.Usage(errors.New("ro and a disk that can be written to (--overlay, --ephemeral) exclude each other"))
			}
			return o.complete(cmd.Context(), args[0], mode)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cleared, err := o.checkMountpoint()
			if err != nil {
				return err
			}
			if cleared {
				cli.Say(cmd.ErrOrStderr(), "cleared a dead mount at %s", o.Mountpoint)
			}
			o.Describe = isTerminal(cmd.ErrOrStderr())
			if foreground {
				return mountForeground(backgroundArgs(cmd.Flags(), o), o)
			}
			return mountBackground(cmd.Context(), backgroundArgs(cmd.Flags(), o), o, cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&foreground, "foreground", "f", false, "stay in the foreground and log to stderr")
	f.IntVar(&o.Partition, "partition", 0, "present partition `N` alone, as disk.img")
	f.BoolVar(&o.RootDisk, "root-disk", false, "the root file system of this machine lies on the disk: never end, nor wait for it")
	f.BoolVar(&o.AllowOther, "allow-other", false, "let other users, root included, use the mount")
	f.Uint32Var(&o.UID, "uid", uint32(os.Getuid()), "owner of the files")
	f.Uint32Var(&o.GID, "gid", uint32(os.Getgid()), "group of the files")
	f.StringVar(&mode, "mode", "", "permissions of disk.img, octal (default 0400, with --allow-other 0444; 0600 and 0644 if it can be written to)")
	o.DiskOptions.addFlags(f)
	options.flags = f
	f.VarP(options, optionsFlag, "o", "flags as mount(8) writes them: allow_other,memory=1G")
	return cmd
}

// complete checks the flags and fills in what follows from them.
func (o *mountOptions) complete(ctx context.Context, source, mode string) (err error) {
	if err := o.DiskOptions.complete(ctx, source); err != nil {
		return err
	}
	if o.Partition < 0 {
		return cli.Usage(fmt.Errorf("--partition %d: partitions count from 1", o.Partition))
	}
	o.Mode = 0o400
	if o.AllowOther {
		o.Mode = 0o444
	}
	if o.Write.writable() {
		o.Mode |= 0o200
	}
	if mode != "" {
		m, err := strconv.ParseUint(mode, 8, 32)
		if err != nil || m == 0 || m&^0o777 != 0 {
			return cli.Usage(fmt.Errorf("--mode %s: not an octal mode such as 0444", mode))
		}
		o.Mode = uint32(m)
	}
	if o.AllowOther && os.Geteuid() != 0 && !userAllowOther("/etc/fuse.conf") {
		return &cli.Error{
			Code: cli.ExitMount, Err: errors.New("--allow-other is not allowed to users on this machine"),
			Hint: "add the line user_allow_other to /etc/fuse.conf",
		}
	}
	if strings.Contains(o.Mountpoint, "://") {
		return cli.Usage(fmt.Errorf("MOUNTPOINT %s is a URL: SOURCE comes first", line.Shown(o.Mountpoint)))
	}
	if o.Mountpoint, err = filepath.Abs(o.Mountpoint); err != nil {
		return err
	}
	return o.outside(nil)
}

// userAllowOther says whether file, in the form of /etc/fuse.conf, lets users
// share their mounts.
func userAllowOther(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.TrimSpace(lines.Text()) == "user_allow_other" {
			return true
		}
	}
	return false
}

// checkMountpoint says whether the mountpoint can be used. A mount of ours
// whose daemon is dead is cleared away.
func (o *mountOptions) checkMountpoint() (cleared bool, err error) {
	fail := func(err error, hint string) (bool, error) {
		return false, &cli.Error{Code: cli.ExitMount, Err: fmt.Errorf("mount at %s: %w", o.Mountpoint, err), Hint: hint}
	}
	m, found, err := mounts.At(o.Mountpoint)
	if err != nil {
		return fail(cli.WithoutPath(err), "")
	}
	if found {
		if alive(m) {
			return fail(errors.New("already a cloopfs mount"), "cloopfs umount "+cli.Quote(o.Mountpoint))
		}
		if err := m.Unmount(true); err != nil {
			return fail(fmt.Errorf("clear a dead mount: %w", err), "")
		}
		cleared = true
	}
	info, err := os.Stat(o.Mountpoint)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fail(errors.New("no such directory"), "mkdir "+cli.Quote(o.Mountpoint))
	case err != nil:
		return fail(cli.WithoutPath(err), "")
	case !info.IsDir():
		return fail(errors.New("not a directory"), "")
	}
	return cleared, o.outside(info)
}

// aliveTime is how long a daemon may take to say that it lives.
const aliveTime = 2 * time.Second

// alive says whether a mount has a daemon, be it one that is stopped. The mount itself, which
// waits for that, is only looked at if no socket answers.
func alive(m mounts.Mount) bool {
	if daemon, err := control.Dial(m.Device, m.Owner); err == nil {
		daemon.Close()
		return true
	}
	answer := make(chan error, 1)
	// Not stat: the kernel may answer that from what it has.
	go func() { answer <- unix.Statfs(m.Point, new(unix.Statfs_t)) }()
	select {
	case err := <-answer:
		return !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) // it is dying
	case <-time.After(aliveTime):
		return true
	}
}

// mountFailure says that FUSE would not do it.
func mountFailure(err error) error {
	f := &cli.Error{Code: cli.ExitMount, Err: err}
	if _, statErr := os.Stat("/dev/fuse"); errors.Is(statErr, os.ErrNotExist) {
		f.Hint = "modprobe fuse"
	} else if _, statErr := os.Stat("/bin/fusermount3"); os.Geteuid() != 0 && statErr != nil {
		f.Hint = "install the package fuse3"
	} else if unix.Access("/dev/fuse", unix.R_OK|unix.W_OK) != nil {
		f.Hint = "every user has to be allowed to read and write /dev/fuse: chmod 666 /dev/fuse"
	}
	return f
}
