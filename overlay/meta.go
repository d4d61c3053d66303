package overlay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// formatVersion is the version of docs/format.md.
const formatVersion = 1

// maxMeta bounds what is read of a meta file.
const maxMeta = 64 << 10

// Base is what an overlay lies over.
type Base struct {
	// Source is where it was found, without credentials: for people, and to find
	// it again.
	Source string `json:"source"`
	// Size of the disk in bytes.
	Size int64 `json:"size"`
	// Identity is what tells the disk from others, and from other versions of
	// itself.
	Identity string `json:"identity"`
}

// meta is the file of this name, in JSON.
type meta struct {
	Version int  `json:"version"`
	Base    Base `json:"base"`
}

// readMeta reads the file name in dir. The error wraps fs.ErrNotExist if there is none.
func readMeta(dir *os.File, name string) (Base, error) {
	f, err := openAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return Base{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMeta))
	if err != nil {
		return Base{}, err
	}
	var m meta
	switch err := json.Unmarshal(text, &m); {
	case err != nil || m.Version == 0:
		return Base{}, fmt.Errorf("%w: %s makes no sense", ErrDamaged, name)
	case m.Version != formatVersion:
		return Base{}, fmt.Errorf("%w: %d, known here is %d", errVersion, m.Version, formatVersion)
	case m.Base.Size <= 0:
		return Base{}, fmt.Errorf("%w: a disk of %d bytes", ErrDamaged, m.Base.Size)
	}
	return m.Base, nil
}

// writeMeta writes the file name in dir, in place of what it was.
func writeMeta(dir *os.File, name string, base Base) error {
	text, err := json.MarshalIndent(meta{formatVersion, base}, "", "\t")
	if err != nil {
		return err
	}
	f, err := openAt(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(append(text, '\n'), 0)
	return errors.Join(err, f.sync(), f.Close())
}
