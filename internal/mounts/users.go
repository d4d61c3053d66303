package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// User is somebody who uses a mount.
type User struct {
	Name string // "/dev/loop3" or "tar (pid 4711)"
	Path string // what it uses
	Hint string // how to make it let go; may be empty
}

// Users finds who uses files of m, as far as the caller may see: loop devices
// first, then processes.
func (m Mount) Users() []User {
	return append(m.loops(), m.processes()...)
}

// holds says whether path lies on the mount.
func (m Mount) holds(path string) bool {
	return path == m.Point || strings.HasPrefix(path, m.Point+"/")
}

func (m Mount) loops() []User {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var users []User
	for _, file := range files {
		raw, err := os.ReadFile(file)
		backing := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), " (deleted)")
		if err != nil || !m.holds(backing) {
			continue
		}
		name := filepath.Base(filepath.Dir(filepath.Dir(file)))
		users = append(users, User{Name: "/dev/" + name, Path: backing, Hint: loopHint(name)})
	}
	return users
}

// loopHint says how to free a loop device: by unmounting what lies on it or
// its partitions, or by detaching it.
func loopHint(name string) string {
	infos, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return i.Source != "/dev/"+name && !strings.HasPrefix(i.Source, "/dev/"+name+"p"), false
	})
	if err != nil || len(infos) == 0 {
		return "losetup -d /dev/" + name
	}
	return "umount " + infos[0].Mountpoint
}

func (m Mount) processes() []User {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	var users []User
	for _, proc := range procs {
		if path := m.usedBy(proc); path != "" {
			pid, _ := strconv.Atoi(filepath.Base(proc))
			comm, _ := os.ReadFile(proc + "/comm")
			users = append(users, User{Name: fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(comm)), pid), Path: path})
		}
	}
	return users
}

// usedBy returns a path of the mount that the process in /proc directory proc
// uses: its working directory, its root, an open file or a mapping.
func (m Mount) usedBy(proc string) string {
	links := []string{proc + "/cwd", proc + "/root"}
	fds, _ := filepath.Glob(proc + "/fd/*")
	for _, link := range append(links, fds...) {
		if path, err := os.Readlink(link); err == nil && m.holds(path) {
			return path
		}
	}
	maps, _ := os.ReadFile(proc + "/maps")
	for line := range strings.Lines(string(maps)) {
		if i := strings.IndexByte(line, '/'); i >= 0 && m.holds(strings.TrimSpace(line[i:])) {
			return strings.TrimSpace(line[i:])
		}
	}
	return ""
}
