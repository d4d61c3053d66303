package blockio

import (
	"errors"
	"net/url"
	"time"
)

var (
	// ErrChanged says that the image is no longer the one that was opened.
	ErrChanged = errors.New("image changed")
	// ErrOptions says that the options for a Remote contradict themselves or the URL, or
	// hold what can't be used.
	ErrOptions = errors.New("invalid options")
)

// Answer is an error that a server has answered with. It is fs.ErrNotExist if there is no such
// file, and fs.ErrPermission if there may be one, but not for who we are.
type Answer interface {
	error
	// Passing says that the same question may have another answer soon.
	Passing() bool
}

// Remote is what a Source is, too, if its bytes come from servers. It is safe for concurrent
// use, and nothing of it waits for them.
type Remote interface {
	Blamer
	// Copy is the copy of the file that was opened.
	Copy() Copy
	// Adopted are the other copies that were seen since to be the same file.
	Adopted() []Copy
	// Credentials is a digest of all that told the server who we are: another user's is
	// another.
	Credentials() string
	// Connections is how many requests there may be at a time, by now.
	Connections() int
	// Trip is the line's round trip, lately; 0 if it is not known.
	Trip() time.Duration
	// Overloaded says that the servers ask for less than they are asked for.
	Overloaded() bool
	// Servers says how the servers have served the file so far: first that of the copy
	// that was opened.
	Servers() []Server
	// Join has further servers used, once they are seen to have these pieces of the file.
	Join(pieces []Piece)
}

// Copy is where a file was found, and what was given there to tell its versions apart.
type Copy struct {
	URL       *url.URL // as given, without its user
	Validator string   // empty if nothing was given
}

// Piece is bytes of a file, by which it is known.
type Piece struct {
	Off   int64
	Bytes []byte
}

// Extent is where the piece lies.
func (p Piece) Extent() Extent { return Extent{Off: p.Off, Len: int64(len(p.Bytes))} }

// ServerState is what a server is used for, in a word.
type ServerState string

// The states of a server.
const (
	// ServerOK: it is asked.
	ServerOK ServerState = "ok"
	// ServerFailing: it is asked, and has brought nothing since it failed.
	ServerFailing ServerState = "failing"
	// ServerJoining: it was not seen yet to have the same file, and is not asked.
	ServerJoining ServerState = "joining"
	// ServerLeft: it has failed, and is asked where no other can be, or when it is well again.
	ServerLeft ServerState = "left"
	// ServerBanned: it has another file, or has sent wrong bytes, and is not asked again.
	ServerBanned ServerState = "banned"
)

// Server is how a server has served a file.
type Server struct {
	// URL is where the file was found last, as it may be shown.
	URL string
	// State says what the server is used for.
	State ServerState
	// OK says that the last answer brought data.
	OK       bool
	Requests int64 // sent, those that were redirected included
	Failed   int64 // that brought no data, or less than they announced
	Bytes    int64 // of the file, received
	// Answer is how long it takes to answer lately, and Rate how many bytes it then brings
	// in a second; 0 if that is not known.
	Answer time.Duration
	Rate   float64
	// LastError is empty if there was none.
	LastError   string
	LastErrorAt time.Time
}

// Fetched is what servers have done together.
func Fetched(all []Server) (requests, failed, bytes int64) {
	for _, s := range all {
		requests, failed, bytes = requests+s.Requests, failed+s.Failed, bytes+s.Bytes
	}
	return requests, failed, bytes
}
