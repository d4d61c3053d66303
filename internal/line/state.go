package line

import (
	"errors"
	"fmt"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/fetch"
	"github.com/cloopfs/cloopfs/profile"
)

// At is where the image is.
func (l *Line) At() Location { return l.at }

// Disk is what the image decodes to.
func (l *Line) Disk() *cloop.Image { return l.disk }

// Index says where the image's blocks are.
func (l *Line) Index() *cloop.Index { return l.index }

// Runs is the stored blocks, checked if they can be.
func (l *Line) Runs() blockio.Runs { return l.runs }

// Recorder hears what is read; nil if nobody wants to know.
func (l *Line) Recorder() *profile.Recorder { return l.record }

// Proof is what the image is checked by; nil if by nothing.
func (l *Line) Proof() *Proof { return l.proof }

// ImageSize is the size of the image in bytes.
func (l *Line) ImageSize() int64 { return l.source.Size() }

// FileSize is the size in bytes of the file that the image is, or lies in.
func (l *Line) FileSize() int64 { return l.file.Size() }

// Begin is the offset of the image's first byte in its file.
func (l *Line) Begin() int64 { return l.parts[0].Off }

// ModTime is when the file was changed last; zero if that is not known.
func (l *Line) ModTime() time.Time { return l.file.ModTime() }

// Remote says whether the file is on servers that are asked.
func (l *Line) Remote() bool { return l.file.remote != nil }

// Servers are those of the file, as they are; none if it is not Remote.
func (l *Line) Servers() []blockio.Server {
	if l.file.remote == nil {
		return nil
	}
	return l.file.remote.Servers()
}

// Validated says whether a changed file of the same size would be noticed.
func (l *Line) Validated() bool { return l.file.remote == nil || l.file.remote.Validated() }

// MemoryStats tells of the decoded blocks in memory.
func (l *Line) MemoryStats() cache.MemoryStats { return l.memory.Stats() }

// FetchStats tells of the stored blocks that were fetched.
func (l *Line) FetchStats() fetch.Stats { return l.fetch.Stats() }

// IndexFetched is what was fetched of the file that is no stored block: header, index,
// directories.
func (l *Line) IndexFetched() (requests, bytes int64) {
	if l.file.remote == nil {
		return 0, 0
	}
	return l.file.remote.requests.Load(), l.file.remote.bytes.Load()
}

// Uncached is why nothing is kept on disk of the file, if something should be.
func (l *Line) Uncached() error { return l.file.uncached }

// Warning says why nothing is kept on disk, if that is this machine's fault.
func (l *Line) Warning() string {
	if err := l.file.uncached; err != nil && !errors.Is(err, errNoValidator) {
		return fmt.Sprintf("nothing is kept in the cache: %v", err)
	}
	if c := l.file.cached; c != nil && l.file.remote != nil {
		if room, err := c.dir.Fits(); err == nil && room <= 0 {
			return fmt.Sprintf("the cache in %s has no room (--cache-size, --min-free): what is fetched is not kept", c.dir.Path())
		}
	}
	return ""
}
