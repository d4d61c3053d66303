package httpblock

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// stream reads a range, through as many requests as that takes. It is not safe
// for concurrent use.
type stream struct {
	ctx     context.Context // of OpenRange: it bounds every request of the stream
	src     *Source
	left    blockio.Range // what has not been read yet
	attempt *attempt      // nil: the next Read makes a request
}

func (st *stream) Read(buf []byte) (int, error) {
	if st.left.Len == 0 {
		return 0, io.EOF
	}
	if len(buf) == 0 {
		return 0, nil
	}
	buf = buf[:min(int64(len(buf)), st.left.Len)]
	start := time.Now()
	if st.attempt != nil {
		st.attempt.patience.until = st.src.giveUp(start)
		if n, err := st.readOnce(buf); err == nil {
			return n, nil
		} // an error is a reason to ask again
	}
	return st.src.retry(st.ctx, start, func(p patience) (int, error) {
		if st.attempt == nil {
			a, err := st.src.attempt(st.ctx, st.left, p)
			if err != nil {
				return 0, err
			}
			st.attempt = a
		}
		return st.readOnce(buf)
	})
}

// readOnce reads from the response at hand. It fails if that brings nothing
// more, and then drops it.
func (st *stream) readOnce(p []byte) (int, error) {
	n, err := st.attempt.Read(p)
	st.left.Off += int64(n)
	st.left.Len -= int64(n)
	if err != nil || st.attempt.left == 0 {
		st.drop()
	}
	if n > 0 {
		return n, nil
	}
	if err == nil || err == io.EOF {
		err = fmt.Errorf("the answer ended %d bytes early", st.left.Len)
	}
	return 0, err
}

func (st *stream) drop() {
	if st.attempt != nil {
		st.attempt.Close()
		st.attempt = nil
	}
}

// Close ends the stream. A response that has not been read to its end takes
// its connection with it.
func (st *stream) Close() error {
	st.drop()
	return nil
}
