package fetch

import (
	"math"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// Replay brings what an earlier run wanted, in that order, as far as nobody waits for
// other blocks. Spans must not overlap, and lie within the image.
func (s *Scheduler) Replay(spans []blockio.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy.trace = newTrace(spans)
	s.more = true
	s.wakeLocked()
}

// wakeLocked has the pump look for something to bring.
func (s *Scheduler) wakeLocked() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// readersFirst is how long the pump waits after anything has happened: whoever has just
// got a block may be about to want the next.
const readersFirst = 100 * time.Microsecond

// pump brings blocks before anybody waits for them, while there is room on the line.
func (s *Scheduler) pump() {
	var p pending
	for s.asleep() {
		for s.step(&p) {
		}
		s.submit(&p)
	}
}

// asleep returns when there may be something to do, or with false at the end.
func (s *Scheduler) asleep() bool {
	select {
	case <-s.wake:
		time.Sleep(readersFirst)
		return true
	case <-s.ctx.Done():
		return false
	}
}

// step chooses one block and has it asked for, perhaps together with the next. It says
// whether there was one.
func (s *Scheduler) step(p *pending) bool {
	s.lookForRoom(p)
	n, class, ok := s.choose(p)
	if !ok || n < 0 {
		return ok
	}
	l, err := s.locate(s.ctx, n)
	if err != nil || !s.worth(l) {
		return true
	}
	if !p.takes(class, l) {
		s.submit(p)
	}
	p.add(class, l)
	return true
}

// worth says whether a block has to be asked for, and would be kept.
func (s *Scheduler) worth(l located) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.longest = max(s.longest, l.ext.Len)
	if l.local || l.ext.Len == 0 || s.opt.Store == nil && bufferSize(l.ext.Len) > s.opt.Keep/2 {
		s.policy.here()
		return false
	}
	s.policy.long(l.ext.Len)
	return true
}

// pending is a request that the pump is putting together.
type pending struct {
	class  blockio.Class
	blocks []located
	bytes  int64
	most   int64 // bytes of a request

	spare  int64     // bytes that may be brought that perhaps nobody will ask for
	looked time.Time // when that was asked
}

// takes says whether a block belongs into the same request.
func (p *pending) takes(class blockio.Class, l located) bool {
	last := len(p.blocks) - 1
	return last < 0 || class == p.class && l.ext.Off == p.blocks[last].ext.End() && p.bytes+l.ext.Len <= p.most && last < maxAhead-1
}

func (p *pending) add(class blockio.Class, l located) {
	p.class = class
	p.blocks = append(p.blocks, l)
	p.bytes += l.ext.Len
}

// maxBlocks is how many blocks may be flying, kept or failed until the pump brings more: very
// small ones take more memory than their bytes do.
const maxBlocks = 4 * maxAhead

// choose is the next block to bring, if there is room for it.
func (s *Scheduler) choose(p *pending) (n int64, class blockio.Class, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	window := s.windowLocked(blockio.ReadAhead)
	p.most = min(s.line.request(), window)
	s.purgeLocked()
	due := s.due + p.bytes
	if len(p.blocks) == 0 {
		due += p.most / 2 // wait until there is room for a request worth making
	}
	switch {
	case s.closed, time.Now().Before(s.pause), due >= window, len(s.blocks) >= maxBlocks, s.waitingLocked():
		return 0, 0, false // for now
	case !s.roomLocked(p):
		s.more = false
		s.startLocked()
		return 0, 0, false
	}
	s.policy.window = window
	s.policy.room = due < s.windowLocked(blockio.Trace)
	s.policy.quiet = due+s.waited < s.windowLocked(blockio.Speculation)
	s.policy.neighbours = s.maySpeculateLocked(p)
	n, class, ok = s.policy.next(time.Now())
	// Not now is not the end.
	s.more = ok || !s.policy.idle() && (!s.policy.room || !s.policy.quiet)
	s.startLocked() // what waits for the pump to have nothing more
	return n, class, ok
}

const (
	// freeSpeculation is how many bytes may be brought for nothing, beside as many as
	// were read.
	freeSpeculation = 32 << 20
	// spareTime is for how long an answer of Options.Spare counts.
	spareTime = time.Second
)

// maySpeculateLocked says whether to bring what perhaps nobody will ask for.
func (s *Scheduler) maySpeculateLocked(p *pending) bool {
	if !s.opt.Ahead || p.spare <= 0 {
		return false
	}
	return s.ahead[blockio.Speculation]+p.bytes+s.longest <= freeSpeculation+s.read
}

// roomLocked says whether what is brought now will still be here when somebody wants it.
func (s *Scheduler) roomLocked(p *pending) bool {
	flying := len(s.blocks) - len(s.kept)
	return s.storing || s.loose+s.due+p.bytes < s.opt.Keep/2 && s.looseN+flying+len(p.blocks) < maxAhead/2
}

// uncountLocked says that b is no longer brought ahead of readers: one has read it, or
// never will.
func (s *Scheduler) uncountLocked(b *block) {
	if b.counted {
		b.counted = false
		s.ahead[b.req.rng.Class] -= b.ext.Len
	}
	if b.loose {
		b.loose = false
		s.loose -= b.ext.Len
		s.looseN--
	}
}

// restTime is how long the pump brings nothing after it could not bring something: what
// fails at once must not use up a whole trace.
const restTime = time.Second

func (s *Scheduler) restLocked() {
	s.pause = time.Now().Add(restTime)
	time.AfterFunc(restTime, s.wakeLocked)
}

// lookForRoom asks what may be brought that perhaps nobody will ask for.
func (s *Scheduler) lookForRoom(p *pending) {
	switch {
	case !s.opt.Ahead:
	case s.opt.Spare == nil:
		p.spare = math.MaxInt64
	case time.Since(p.looked) >= spareTime:
		p.spare, p.looked = s.opt.Spare(), time.Now()
	}
}

// waitingLocked says whether something that was chosen before could not start yet.
func (s *Scheduler) waitingLocked() bool {
	for _, q := range s.queue[blockio.Demand+1 : blockio.Fill] {
		if len(q) > 0 {
			return true
		}
	}
	return false
}

// windowLocked is how many bytes may be on their way for other classes than demand when
// one of a class is asked for.
func (s *Scheduler) windowLocked(class blockio.Class) int64 {
	if s.opt.Window > 0 {
		return s.opt.Window
	}
	return s.line.window(class)
}

// submit asks for what is pending.
func (s *Scheduler) submit(p *pending) {
	if len(p.blocks) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.purgeLocked()
	var r *request
	for _, l := range p.blocks {
		if b := s.blocks[l.n]; b != nil { // somebody was faster
			s.promoteLocked(b.req, p.class)
			s.submitLocked(r)
			r = nil
			continue
		}
		if r == nil {
			r = &request{rng: blockio.Range{Extent: blockio.Extent{Off: l.ext.Off}, Class: p.class}, ahead: true}
		}
		s.addLocked(r, l).counted = true
		s.ahead[p.class] += l.ext.Len
	}
	s.submitLocked(r)
	s.startLocked() // what was promoted
	s.wakeLocked()  // what was not asked for leaves room
	if p.class == blockio.Speculation {
		p.spare -= p.bytes
	}
	p.blocks, p.bytes = p.blocks[:0], 0
}
