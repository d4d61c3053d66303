package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/mounts"
)

// outside refuses what is used while the disk is mounted if it lies at or below the
// mountpoint: it would disappear under the mount, or be read through it. Links are
// followed. With what stat(2) says of the mountpoint bind mounts are, too; nil is for
// a mountpoint that must not be looked at.
func (o *mountOptions) outside(mountpoint fs.FileInfo) error {
	point, err := mounts.Resolve(o.Mountpoint)
	if err != nil {
		return nil // there is none: checkMountpoint says so
	}
	for _, p := range []struct{ what, path string }{
		{"SOURCE", o.Source.Path},
		{"the manifest", o.Line.Proof.File()},
		{"the overlay", string(o.Write.Overlay)},
		{"the file for --record", string(o.Profile.Record)},
		{"the file of --bearer-token-file", o.Line.Access.TokenFile},
		{"the log", o.Log.File},
		{"the cache directory", string(o.Line.Cache.Dir)},
	} {
		if p.path != "" && isBelow(resolved(p.path), point, mountpoint) {
			return &cli.Error{Code: cli.ExitMount, Err: fmt.Errorf("mount at %s: %s lies below it", o.Mountpoint, p.what)}
		}
	}
	return nil
}

// isBelow says whether path, which is absolute and without links, is dir or lies
// below it, by name or, if info is not nil, as the same directory under another name.
func isBelow(path, dir string, info fs.FileInfo) bool {
	if strings.HasPrefix(path+"/", strings.TrimSuffix(dir, "/")+"/") {
		return true
	}
	for info != nil {
		if at, err := os.Stat(path); err == nil && os.SameFile(at, info) {
			return true
		}
		parent := filepath.Dir(path)
		if parent == path {
			return false
		}
		path = parent
	}
	return false
}

// resolved is an absolute path without links, as far as it exists.
func resolved(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	dir := filepath.Dir(path)
	if dir == path {
		return path
	}
	return filepath.Join(resolved(dir), filepath.Base(path))
}
