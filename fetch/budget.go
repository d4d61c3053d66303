package fetch

import (
	"golang.org/x/sync/semaphore"

	"github.com/cloopfs/cloopfs/blockio"
)

// budget is bytes of buffers that may be in use at a time. One that is larger counts as all
// of them.
type budget struct {
	sem  *semaphore.Weighted
	size int64
}

func newBudget(size int64) budget { return budget{semaphore.NewWeighted(size), size} }

// share is how much of its budget a block ahead takes: a reader's takes none while it is in
// the store, and will be read from there when its turn comes. So those who wait for the
// network do not hold up those who need nothing of it.
func (r *run) share(e blockio.Extent, local bool) int64 {
	if local && r.class == blockio.Demand {
		return 0
	}
	return bufferSize(e.Len)
}

// flies counts a block ahead that is not in the store after all, and says whether there is
// room for it. The first block has to have some.
func (r *run) flies(b *block) bool {
	size := bufferSize(b.ext.Len) - r.share(b.ext, true)
	ok, _ := r.reserve(size) // it does not wait, since there is something ahead
	if ok || b == r.ahead[0] {
		r.bytes += size
		return true
	}
	return false
}

// reserve takes n bytes of the budget; none need no room. While the run still has blocks
// ahead it does not wait: runs that hold some of it and wait for more could wait for each
// other.
func (r *run) reserve(n int64) (ok bool, err error) {
	n = min(n, r.budget.size)
	ok = n == 0 || r.budget.sem.TryAcquire(n)
	if !ok && len(r.ahead) == 0 {
		if err := r.budget.sem.Acquire(r.ctx, n); err != nil {
			return false, &blockio.BlockError{Block: r.next, Err: err}
		}
		ok = true
	}
	if ok {
		r.reserved += n
	}
	return ok, nil
}

// unreserve gives back up to n bytes.
func (r *run) unreserve(n int64) {
	n = min(n, r.reserved)
	r.reserved -= n
	r.budget.sem.Release(n)
}

// giveStored is Scheduler.giveStored, with room for the bytes if they are for a reader. Who
// holds it waits for nothing but the disk, and the hashes of a signed image.
func (r *run) giveStored(b *block, deliver func(n int64, stored []byte) error) (here, good bool) {
	if r.class == blockio.Demand {
		local := &r.s.local
		n := min(bufferSize(b.ext.Len), local.size)
		if !local.sem.TryAcquire(n) && local.sem.Acquire(r.ctx, n) != nil {
			return false, false
		}
		defer local.sem.Release(n)
	}
	return r.s.giveStored(b.n, b.ext, deliver)
}
