package cache

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

const (
	// seenPrefix begins the names of what is remembered of images, wherever they are.
	seenPrefix = "seen-"
	// maxSeenSize and maxSeenFiles bound that: 4 MiB.
	maxSeenSize  = 4 << 10
	maxSeenFiles = 1024
)

// Recall is what Remember has kept under name. The error wraps fs.ErrNotExist if that is
// nothing.
func (d *Dir) Recall(name string) ([]byte, error) {
	f, err := ownfile.OpenAt(d.f, seenPrefix+name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSeenSize+1))
}

// Remember keeps a small text under name, which is part of a file's name, if there is none
// or if better says of the one that is there that this is better. It is durable when
// Remember returns, and no part of any image: nothing throws it away but newer ones, those that were
// written longest ago first.
func (d *Dir) Remember(name string, text []byte, better func(old []byte) bool) error {
	if len(text) > maxSeenSize {
		return errors.New("too long to be remembered")
	}
	unlock, err := d.lock(lockPatience)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := d.Recall(name)
	if err == nil && !better(old) || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		d.forgetSeen()
	}
	const temporary = seenPrefix + "new" // one at a time: the lock is held
	if err := replaceFile(d.f, seenPrefix+name, temporary, text); err != nil {
		return err
	}
	return d.f.Sync()
}

// forgetSeen makes room for one more.
func (d *Dir) forgetSeen() {
	names, err := d.names()
	if err != nil {
		return
	}
	type seen struct {
		name string
		at   time.Time
	}
	var all []seen
	for _, name := range names {
		if strings.HasPrefix(name, seenPrefix) {
			all = append(all, seen{name, modTime(d.f, name)})
		}
	}
	slices.SortFunc(all, func(a, b seen) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.name, b.name)) })
	for _, s := range all[:max(0, len(all)-maxSeenFiles+1)] {
		_ = unix.Unlinkat(int(d.f.Fd()), s.name, 0)
	}
}
