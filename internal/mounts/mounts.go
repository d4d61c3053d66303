// Package mounts finds and unmounts the cloopfs file systems of this machine,
// and tells who uses them. It never touches a mountpoint itself, which might
// wait for a daemon: everything is read from /proc and /sys.
package mounts

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/proc"
)

// FSType is the type that /proc/mounts shows.
const FSType = "fuse.cloopfs"

// Mount is a mounted cloopfs.
type Mount struct {
	Point  string   // where it is mounted, absolute
	Device int      // minor device number; no other mount has it at the same time
	Owner  int      // user whose daemon serves it
	id     int      // of /proc/self/mountinfo: its own, however it is moved
	above  *os.File // the directory above it, if it is held
}

// At returns the cloopfs mounted at path. If something else has been mounted
// over it, the error is a *CoveredError. path need not be clean or absolute;
// only its parent is looked up.
func At(path string) (m Mount, found bool, err error) {
	point, err := Resolve(path)
	if err != nil {
		return Mount{}, false, err
	}
	infos, err := list(at(point))
	if err != nil || !slices.ContainsFunc(infos, func(i *mountinfo.Info) bool { return i.FSType == FSType }) {
		return Mount{}, false, err
	}
	i, err := topmost(infos)
	if err != nil {
		return Mount{}, false, err
	}
	return describe(i), true, nil
}

// list returns the mounts in sight that filter does not skip, in the order in which they
// were made.
func list(filter mountinfo.FilterFunc) ([]*mountinfo.Info, error) {
	f, err := proc.Open("self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mountinfo.GetMountsFromReader(f, filter)
}

// at is a filter for the mounts at a mountpoint.
func at(point string) mountinfo.FilterFunc {
	return func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != point, false }
}

// topmost returns the last of the mounts at a mountpoint, which are not none, or a
// *CoveredError if it is not one of cloopfs.
func topmost(infos []*mountinfo.Info) (*mountinfo.Info, error) {
	i := infos[len(infos)-1]
	if i.FSType != FSType {
		return nil, &CoveredError{Source: i.Source, FSType: i.FSType}
	}
	return i, nil
}

// All returns every cloopfs mount in sight, in the order in which they were made.
func All() ([]Mount, error) {
	infos, err := list(mountinfo.FSTypeFilter(FSType))
	var all []Mount
	for _, i := range infos {
		all = append(all, describe(i))
	}
	return all, err
}

// ProcHidden says whether /proc shows less of others' processes to who has no right to trace
// them (hidepid of proc(5)).
func ProcHidden() bool {
	infos, err := list(at("/proc"))
	if err != nil || len(infos) == 0 {
		return false
	}
	for option := range strings.SplitSeq(infos[len(infos)-1].VFSOptions, ",") {
		if how, ok := strings.CutPrefix(option, "hidepid="); ok {
			return how != "0" && how != "off"
		}
	}
	return false
}

func describe(i *mountinfo.Info) Mount {
	m := Mount{Point: i.Mountpoint, Device: i.Minor, id: i.ID}
	for option := range strings.SplitSeq(i.VFSOptions, ",") {
		if id, ok := strings.CutPrefix(option, "user_id="); ok {
			m.Owner, _ = strconv.Atoi(id)
		}
	}
	return m
}

// Resolve makes path absolute and free of links, without a look at its last
// element: that may be the root of a mount whose daemon is gone.
func Resolve(path string) (string, error) {
	const maxLinks = 40 // as in the kernel
	for range maxLinks {
		abs, err := filepath.Abs(path)
		if err != nil || abs == "/" {
			return abs, err
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
		if err != nil {
			return "", err
		}
		point := filepath.Join(dir, filepath.Base(abs))
		// A link to a mountpoint is read, not followed: that never waits.
		target, err := os.Readlink(point)
		if err != nil {
			return point, nil
		}
		if path = target; !filepath.IsAbs(target) {
			path = filepath.Join(dir, target)
		}
	}
	return "", unix.ELOOP
}

// ErrBusy says that a mount is in use.
var ErrBusy = errors.New("in use")

// CoveredError says that something else has been mounted over a mount.
type CoveredError struct{ Source, FSType string }

func (e *CoveredError) Error() string {
	return fmt.Sprintf("%s (%s) is mounted over it", e.Source, e.FSType)
}

// Hold returns m so that it can be unmounted without a look at the root file system, which may
// have been swapped for another, below which m is now. Until the process ends it holds
// the directory above m.
func (m Mount) Hold() (Mount, error) {
	above, err := os.OpenFile(filepath.Dir(m.Point), unix.O_PATH|unix.O_DIRECTORY, 0)
	m.above = above
	return m, err
}

// Unmount unmounts m. With lazy it disappears from the tree at once and is
// unmounted when the last user lets go; else a mount in use is ErrBusy. A mount
// that has gone already is no error; what else is mounted there is left alone.
// If m is held the working directory of the process becomes the one above it.
func (m Mount) Unmount(lazy bool) error {
	point, err := m.today()
	if err != nil || point == "" {
		return err
	}
	path, flags := point, unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	if m.above != nil {
		if err := m.above.Chdir(); err != nil {
			return err
		}
		path = filepath.Base(m.Point)
	}
	err = unix.Unmount(path, flags)
	if errors.Is(err, unix.EPERM) {
		return helperUnmount(point, lazy)
	}
	if errors.Is(err, unix.EBUSY) {
		return ErrBusy
	}
	return err
}

// today returns where m is mounted: a directory above may have been renamed, or the root file
// system swapped. It is "" if m is no more, and the error a *CoveredError if something
// else has been mounted over it.
func (m Mount) today() (point string, err error) {
	all, err := list(nil)
	if err != nil {
		return "", err
	}
	own := slices.IndexFunc(all, func(i *mountinfo.Info) bool { return i.ID == m.id && i.FSType == FSType && i.Minor == m.Device })
	if own < 0 {
		return "", nil
	}
	point = all[own].Mountpoint
	top, err := topmost(slices.DeleteFunc(all, func(i *mountinfo.Info) bool { return i.Mountpoint != point }))
	if err != nil || top.ID != m.id {
		return "", err
	}
	return point, nil
}

// helperUnmount lets the set-uid helper unmount, for users.
func helperUnmount(point string, lazy bool) error {
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	cmd := exec.Command("fusermount3", append(args, "--", point)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case bytes.Contains(bytes.ToLower(out), []byte("busy")):
		return ErrBusy
	}
	return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
}

// Abort ends the connection between kernel and daemon: every read under way
// fails at once, and the daemon ends.
func (m Mount) Abort() error {
	abort := fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", m.Device)
	file, err := os.OpenFile(abort, os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString("1")
		return errors.Join(err, file.Close())
	}
	// Without fusectl: a forced unmount aborts first, and may then be EBUSY.
	if err := unix.Unmount(m.Point, unix.UMOUNT_NOFOLLOW|unix.MNT_FORCE); err == nil || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}
