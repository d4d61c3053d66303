package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// formatVersion is the version of docs/format.md.
const formatVersion = 1

// maxMeta bounds what is read of a meta file.
const maxMeta = 1 << 20

// These bound the lists of a meta file.
const (
	maxSeen      = 64
	maxSources   = 64
	maxAddresses = 64
)

// errDamaged says that an entry's meta file is of no use: a disk that was full, a
// crash.
var errDamaged = errors.New("damaged cache entry")

// errVersion says that an entry is of a version that is not known here.
var errVersion = errors.New("the cache entry is of another version")

// Identity is what tells one image from all others.
type Identity struct {
	// Key is the URL without user, query and fragment, or what stands for it.
	Key string
	// Validator is what the server gave to tell the versions of the file apart.
	Validator string
	// Size of the file in bytes.
	Size int64
	// Address is a digest of the URL as it was given, with its query. It is no part
	// of the identity: it helps Find. It may be empty.
	Address string
}

// Trusted begins the validator of an image of which no server gave one.
const Trusted = "trusted, for "

// maxValidator bounds the validators that are kept as they are.
const maxValidator = 256

// bounded is id with a digest in place of a long validator.
func (id Identity) bounded() Identity {
	if len(id.Validator) > maxValidator {
		sum := sha256.Sum256([]byte(id.Validator))
		id.Validator = "digest " + hex.EncodeToString(sum[:])
	}
	return id
}

// name is the name of the directory of an image that is seen for the first time.
func (id Identity) name() string {
	h := sha256.New()
	for _, s := range []string{"cloopfs cache", strconv.Itoa(formatVersion), id.Key, id.Validator, strconv.FormatInt(id.Size, 10)} {
		fmt.Fprintf(h, "%d:%s\n", len(s), s) // no two lists look the same
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// sighting is a place where an image was seen, and its validator there.
type sighting struct {
	Key       string `json:"key"`
	Validator string `json:"validator"`
}

// meta is what an entry knows of its image: a file in JSON, replaced as a whole.
type meta struct {
	Version int   `json:"version"`
	Size    int64 `json:"size"`
	// ModTime is the first that was seen: it never changes.
	ModTime time.Time `json:"mod_time,omitzero"`
	// Seen is where the file was found: the first is the entry's name.
	Seen []sighting `json:"seen"`
	// Addresses is digests of the URLs, with their queries, that were opened.
	Addresses []string `json:"addresses,omitempty"`
	// Sources is what was opened, as users may see it.
	Sources []string `json:"sources"`
	// Kept says that the entry is not to be thrown away.
	Kept bool `json:"kept"`
	// Complete says that the whole file was here, and right.
	Complete bool `json:"complete"`
}

// is says whether id was seen to be the entry's image.
func (m *meta) is(id Identity) bool {
	return m.Size == id.Size && slices.Contains(m.Seen, sighting{id.Key, id.Validator})
}

// at says whether the entry's image was seen at key.
func (m *meta) at(key string) bool {
	return slices.ContainsFunc(m.Seen, func(s sighting) bool { return s.Key == key })
}

// wasAt says whether the entry's image was seen at an address. Everything was at an
// empty one.
func (m *meta) wasAt(address string) bool {
	return address == "" || slices.Contains(m.Addresses, address)
}

// meet notes that the entry's image was seen at an address.
func (m *meta) meet(address string) {
	if address != "" {
		m.Addresses = add(m.Addresses, address, maxAddresses)
	}
}

// add appends v to a list, if it is not there, in place of the oldest but one if
// the list is full.
func add[T comparable](list []T, v T, most int) []T {
	if slices.Contains(list, v) {
		return list
	}
	if len(list) >= most {
		list = slices.Delete(list, 1, 2)
	}
	return append(list, v)
}

// readMeta reads the meta file in an entry's directory. The error wraps errVersion
// if only a program of another version can tell what is there, and errDamaged if
// nobody can.
func readMeta(dir *os.File) (m meta, err error) {
	text, err := readMetaText(dir)
	for _, lost := range []error{unix.ENOENT, unix.ELOOP, unix.EACCES, unix.EISDIR} { // others may pass
		if errors.Is(err, lost) {
			err = fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	if err != nil {
		return m, err
	}
	// First, as in another version the rest may look different.
	var v struct{ Version int }
	if err := json.Unmarshal(text, &v); err != nil {
		return m, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if v.Version != formatVersion {
		return m, fmt.Errorf("%w (%d)", errVersion, v.Version)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if m.Size <= 0 || len(m.Seen) == 0 {
		return m, fmt.Errorf("%w: not of an image", errDamaged)
	}
	return m, nil
}

func readMetaText(dir *os.File) ([]byte, error) {
	f, err := ownfile.OpenAt(dir, metaName, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxMeta))
}

// text is the content of the meta file. Of lists that are too long for it the oldest
// go, but never where the image was seen first: that is the entry's name.
func (m meta) text() ([]byte, error) {
	for {
		text, err := json.MarshalIndent(m, "", "  ")
		switch {
		case err != nil || len(text) < maxMeta:
			return append(text, '\n'), err
		case len(m.Sources) > 0:
			m.Sources = m.Sources[1:]
		case len(m.Seen) > 1:
			m.Seen = append(m.Seen[:1:1], m.Seen[2:]...)
		default:
			return nil, errors.New("too long for the cache")
		}
	}
}

// writeMeta replaces the meta file in an entry's directory.
func writeMeta(dir *os.File, m meta) error {
	m.Version = formatVersion
	text, err := m.text()
	if err != nil {
		return err
	}
	return replaceFile(dir, metaName, metaName+".new", text)
}

// clearMarks takes back in place that the entry is complete and kept: on a full disk
// there may be no room for another meta file, without which nothing could be thrown
// away. null is as long as true, and says nothing.
func clearMarks(dir *os.File) error {
	text, err := readMetaText(dir)
	if err != nil {
		return err
	}
	f, err := ownfile.OpenAt(dir, metaName, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, mark := range []string{"kept", "complete"} {
		// A line's begin is never inside a string: there it is escaped.
		before := fmt.Sprintf("\n  %q: ", mark)
		if i := bytes.Index(text, []byte(before+"true")); i >= 0 {
			if _, err := f.WriteAt([]byte("null"), int64(i+len(before))); err != nil {
				return err
			}
		}
	}
	if m, err := readMeta(dir); err != nil || m.Complete || m.Kept {
		return errors.Join(errors.New("can't be changed in place"), err)
	}
	return f.Sync()
}

// updateMeta changes the meta in an entry's directory. The caller holds the lock.
func updateMeta(f *os.File, change func(*meta)) error {
	m, err := readMeta(f)
	if err != nil {
		return err
	}
	change(&m)
	return writeMeta(f, m)
}
