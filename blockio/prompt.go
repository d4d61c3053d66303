package blockio

// Prompt is what a source is, too, if some of its bytes may be at hand. It is safe for
// concurrent use.
type Prompt interface {
	// ReadNow fills p with the bytes at off if it need not wait for a disk or for
	// anybody else, and says whether it has. If not, p's contents are undefined.
	ReadNow(p []byte, off int64) bool
}

// Nearby returns the stored blocks of src, as far as they are at hand, as a BlockStore to
// which nothing need be added.
func Nearby(src Prompt) BlockStore { return nearby{src} }

type nearby struct{ Prompt }

func (nearby) Have(int64, Extent) bool { return true }

func (s nearby) Get(_ int64, e Extent, p []byte) bool { return s.ReadNow(p, e.Off) }

func (nearby) Put(int64, Extent, []byte) {}

func (nearby) Forget(int64, Extent) {}

func (nearby) Claim(Extent, Class) (release func(), ok bool) { return func() {}, true }
