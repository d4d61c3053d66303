package partition

import (
	"io"

	"github.com/diskfs/go-diskfs/backend"
)

// storage is a reader as go-diskfs wants it. Of the rest of its methods the
// library uses Seek alone, to find a GPT's backup, which is not looked for: its
// header could not be checked before the library makes room for what it says.
type storage struct {
	io.ReaderAt
	backend.Storage
}

func (s storage) ReadAt(p []byte, off int64) (int, error) { return s.ReaderAt.ReadAt(p, off) }

func (s storage) Seek(int64, int) (int64, error) { return 0, backend.ErrNotSuitable }
