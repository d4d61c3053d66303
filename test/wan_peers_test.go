//go:build integration

package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// site is where the peers find the same disk: as cloop, as it is, and its files as
// squashfs.
type site struct {
	cloop, raw, squashfs string
	local                string // a file: the disk
	trace                string // a file: what the workload reads of the disk
}

// Among the flags of cloopfs traceFile stands for site.trace, and partFile for that
// without each fifth run.
const (
	traceFile = "TRACE"
	partFile  = "PART"
)

const (
	replaying  = "cloopfs --profile " + traceFile
	demandOnly = "cloopfs --speculate off"
)

// view is what a peer makes of it: a file that is the disk, or a directory.
type view struct{ disk, tree string }

// peer is a way to use a remote image.
type peer struct {
	name  string
	tree  bool // shows files alone
	start func(s *session, at site) (view, error)
}

// peers are those that BenchmarkWAN compares.
var peers = []peer{
	{name: "cloopfs", start: startCloopfs()},
	{name: replaying, start: startCloopfs("--profile", traceFile)},
	{name: demandOnly, start: startCloopfs("--speculate", "off")},
	{name: "download", start: startDownload},
	{name: "qemu", start: startQEMU},
	{name: "rclone", start: startRclone},
	{name: "httpfs2", start: startHTTPFS2},
	{name: "nbdkit", start: startNBDKit},
	{name: "squashfuse-rclone", tree: true, start: startSquashfuse(rcloneFile)},
	{name: "squashfuse-httpfs2", tree: true, start: startSquashfuse(httpfs2File)},
}

// curl fetches the image, and no more.
var curl = peer{name: "curl", start: func(s *session, at site) (view, error) {
	_, err := fetchFile(s, at.cloop)
	return view{}, err
}}

// local has no need to fetch anything, and does not fail.
var local = peer{name: "local", start: func(_ *session, at site) (view, error) { return view{disk: at.local}, nil }}

// peerNamed is one of peers, or the program under test with the flags that follow its
// name.
func peerNamed(name string) (peer, bool) {
	for _, p := range append(peers, curl) {
		if p.name == name {
			return p, true
		}
	}
	words := strings.Fields(name)
	if len(words) == 0 || words[0] != "cloopfs" {
		return peer{}, false
	}
	return peer{name: name, start: startCloopfs(words[1:]...)}, true
}

// startCloopfs mounts with an empty cache and these flags.
func startCloopfs(flags ...string) func(s *session, at site) (view, error) {
	return func(s *session, at site) (view, error) {
		dir, err := s.mkdir("mnt")
		if err != nil {
			return view{}, err
		}
		flags := append(cacheFlags(s.path("cache"), "2GiB"), flags...)
		if i := slices.Index(flags, traceFile); i >= 0 {
			flags[i] = at.trace
		}
		if i := slices.Index(flags, partFile); i >= 0 {
			if flags[i], err = partOf(at.trace, s.path("part")); err != nil {
				return view{}, err
			}
		}
		_, err = s.run(cloopfs, slices.Concat([]string{"mount"}, flags, []string{at.cloop, dir})...)
		s.undo = append(s.undo, func() {
			if !try(cloopfs, "umount", dir) {
				try(cloopfs, "umount", "--force", dir)
			}
		})
		return view{disk: diskOf(dir)}, err
	}
}

// startDownload fetches the image first.
func startDownload(s *session, at site) (view, error) {
	file, err := fetchFile(s, at.cloop)
	if err != nil {
		return view{}, err
	}
	return exportCloop(s, "driver=file,filename="+file)
}

func fetchFile(s *session, url string) (file string, err error) {
	file = s.path("download")
	_, err = s.run("curl", "--silent", "--show-error", "--fail", "--output", file, url)
	return file, err
}

func startQEMU(s *session, at site) (view, error) {
	return exportCloop(s, "driver=http,url="+at.cloop)
}

func startRclone(s *session, at site) (view, error) {
	file, err := rcloneFile(s, at.cloop)
	if err != nil {
		return view{}, err
	}
	return exportCloop(s, "driver=file,filename="+file)
}

func startHTTPFS2(s *session, at site) (view, error) {
	file, err := httpfs2File(s, at.cloop)
	if err != nil {
		return view{}, err
	}
	return exportCloop(s, "driver=file,filename="+file)
}

// exportCloop has QEMU's storage daemon decode an image and show the disk as a file.
func exportCloop(s *session, image string) (view, error) {
	disk := s.path("disk.img")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		return view{}, err
	}
	return view{disk: disk}, s.mount(disk, "qemu-storage-daemon",
		"--blockdev", image+",node-name=image,read-only=on",
		"--blockdev", "driver=cloop,node-name=disk,file=image,read-only=on",
		"--export", "type=fuse,id=export,node-name=disk,mountpoint="+disk)
}

// rcloneFile shows what is at url as a file, and keeps what was read of it.
func rcloneFile(s *session, url string) (file string, err error) {
	dir, err := s.mkdir("remote")
	if err != nil {
		return "", err
	}
	site, name := filepath.Split(url)
	err = s.mount(dir, "rclone", "mount", "--config", os.DevNull, "--cache-dir", s.path("cache"), "--vfs-cache-mode", "full",
		"--read-only", "--dir-cache-time", "1h", "--attr-timeout", "1h", "--http-url", site, ":http:", dir)
	return filepath.Join(dir, name), err
}

// httpfs2File shows what is at url as a file.
func httpfs2File(s *session, url string) (file string, err error) {
	dir, err := s.mkdir("remote")
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(url)), s.mount(dir, "httpfs2", "-f", url, dir)
}

// startNBDKit shows the disk, which is not compressed.
func startNBDKit(s *session, at site) (view, error) {
	socket, disk := s.path("socket"), s.path("disk.img")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		return view{}, err
	}
	ready := func() bool {
		_, err := os.Stat(socket)
		return err == nil
	}
	// What readahead fetches goes into the cache below it.
	err := s.serve(ready, "nbdkit", "--foreground", "--readonly", "--unix", socket,
		"--filter=readahead", "--filter=cow", "--filter=cache", "curl", at.raw,
		"cache-on-read=true", "cache-min-block-size=64K", "cow-on-read=false")
	if err != nil {
		return view{}, err
	}
	return view{disk: disk}, s.mount(disk, "nbdfuse", "--readonly", disk, "nbd+unix:///?socket="+socket)
}

// startSquashfuse shows the files in the squashfs that file makes a file.
func startSquashfuse(file func(s *session, url string) (string, error)) func(s *session, at site) (view, error) {
	return func(s *session, at site) (view, error) {
		image, err := file(s, at.squashfs)
		if err != nil {
			return view{}, err
		}
		dir, err := s.mkdir("mnt")
		if err != nil {
			return view{}, err
		}
		return view{tree: dir}, s.mount(dir, "squashfuse_ll", "-f", image, dir)
	}
}
