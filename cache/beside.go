package cache

import (
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// besidePrefix begins the names of what is kept of files that lie beside an image.
const besidePrefix = "beside-"

func besideName(name string) string {
	h := fnv.New64a()
	_, _ = io.WriteString(h, name) // never fails
	return fmt.Sprintf("%s%016x", besidePrefix, h.Sum64())
}

// Beside is what SetBeside has kept under name, and how old it is. It is checked by
// nothing.
func (e *Entry) Beside(name string) (content []byte, old time.Duration, err error) {
	f, err := ownfile.OpenAt(e.f, besideName(name), unix.O_RDONLY)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	content, err = io.ReadAll(f)
	return content, time.Since(info.ModTime()), err
}

// SetBeside keeps, as long as the entry, what was found beside the image under name:
// small files that belong to it; nothing, if there is none.
func (e *Entry) SetBeside(name string, content []byte) error {
	temporary := fmt.Sprintf("%s.%d", besideName(name), os.Getpid()) // others may be writing theirs
	return replaceFile(e.f, besideName(name), temporary, content)
}
