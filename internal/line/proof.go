package line

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/internal/units"
	"github.com/cloopfs/cloopfs/manifest"
)

// Proof is what the content of an image is proven by.
type Proof struct {
	manifest *manifest.Manifest
	key      string  // the number of the key that has signed it; empty: nobody's
	notes    []*note // the texts
	hashes   *file
	tree     *manifest.Tree
	checked  *manifest.Checked // when the line is joined
}

// Manifest is the manifest of the image. Of no proof there is none: p is not nil.
func (p *Proof) Manifest() *manifest.Manifest { return p.manifest }

// Key is the number of the key that has signed the manifest; empty if no signature was
// asked for.
func (p *Proof) Key() string { return p.key }

// Stats tells of the stored blocks that were compared.
func (p *Proof) Stats() manifest.CheckedStats { return p.checked.Stats() }

// proving is a proof on its way.
type proving struct {
	read   chan struct{} // closed when the manifest is known, and proven
	opened chan struct{} // closed when all is known
	proof  *Proof
	err    error // of the manifest; after opened, of all
}

// openProven opens the line's file, and at the same time its proof, if one is asked for. That
// the proof is wrong is said at once: the file's server may be silent.
func (l *Line) openProven(ctx context.Context, opt Options, log *slog.Logger) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if opt.proving, err = opt.prove(ctx, l.at, cancel, log); err != nil {
		return err
	}
	if l.file, err = openFile(ctx, l.at, opt, log); err != nil {
		cancel()
	}
	var proofErr error
	if l.proof, proofErr = opt.proving.result(); err == nil || refuted(proofErr) {
		err = proofErr
	}
	return err
}

// prove begins to get the proof of the image at a location, nil if none is asked for. It
// takes as long as ctx at most. If the proof is found wrong giveUp is called.
func (o *Options) prove(ctx context.Context, at Location, giveUp func(), log *slog.Logger) (*proving, error) {
	if o.Proof.Manifest == "" {
		return nil, nil
	}
	there, err := o.Proof.place(at)
	if err != nil {
		return nil, err
	}
	p := &proving{read: make(chan struct{}), opened: make(chan struct{}), proof: new(Proof)}
	opt := *o
	opt.Cache.Key, opt.Mirrors = "", nil // which are the image's alone
	if there.URL == "" || !sameServer(at.URL, there.URL) {
		opt.Access = opt.Access.elsewhere()
	}
	go func() {
		defer close(p.opened)
		if p.err = p.get(ctx, there, opt, log); refuted(p.err) {
			giveUp()
		}
	}()
	return p, nil
}

// root is the proven root of the image. It waits for the manifest.
func (p *proving) root(ctx context.Context) (string, error) {
	if p == nil {
		return "", nil
	}
	select {
	case <-p.read:
		return p.proof.manifest.Root.String(), nil
	case <-p.opened:
		return "", p.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// result is the proof, nil if none was asked for.
func (p *proving) result() (*Proof, error) {
	if p == nil {
		return nil, nil
	}
	<-p.opened
	if p.err != nil {
		p.proof.close()
		return nil, p.err
	}
	return p.proof, nil
}

// get gets the manifest, its signature and the hashes, all at once.
func (p *proving) get(ctx context.Context, there Location, opt Options, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var hashesErr error
	hashes := make(chan struct{})
	go func() {
		defer close(hashes)
		p.proof.hashes, hashesErr = openBeside(ctx, there.with(".hashes"), opt, log)
	}()
	err := p.proof.read(ctx, there, opt, log)
	if err == nil {
		err = opt.Proof.notOlder(p.proof, opt.Cache, log)
	}
	if err != nil {
		cancel()
		<-hashes
		return err
	}
	close(p.read)
	if <-hashes; hashesErr != nil {
		return hashesErr
	}
	tree, err := manifest.OpenTree(p.proof.hashes.source, p.proof.manifest)
	if err == nil {
		p.proof.tree = tree
		err = tree.Top(ctx) // which has come with the file
	}
	if err != nil {
		return fmt.Errorf("%s: %w", there.with(".hashes"), err)
	}
	return nil
}

// openBeside opens a file that belongs to an image. If its server can't be asked, what is
// kept of it serves.
func openBeside(ctx context.Context, at Location, opt Options, log *slog.Logger) (*file, error) {
	f, err := openFile(ctx, at, opt, log)
	if err == nil {
		return f, nil
	}
	if at.URL != "" && !opt.Cache.Offline && opt.Cache.Size > 0 && ctx.Err() == nil && unreachable(err) {
		opt.Cache.Offline = true
		if f, kept := openFile(ctx, at, opt, log); kept == nil {
			log.Warn("a server can't be asked: what is kept of the file is used", "file", at.String(), "error", err)
			return f, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w (%w)", errNoManifest, err)
	}
	return nil, fmt.Errorf("%s: %w", at, err)
}

// read gets the manifest, and its signature if it has to have one. What does not fit is
// got once more, past all that keeps it: it may have been damaged on its way, or just
// been replaced.
func (p *Proof) read(ctx context.Context, there Location, opt Options, log *slog.Logger) error {
	places := []Location{there}
	if opt.Proof.Key != "" {
		places = append(places, there.with(".minisig"))
	}
	notes, errs := make([]*note, len(places)), make([]error, len(places))
	done := make(chan struct{})
	for i, at := range places {
		go func() {
			notes[i], errs[i] = openNote(ctx, at, opt, log)
			done <- struct{}{}
		}()
	}
	for range places {
		<-done
	}
	for _, n := range notes {
		if n != nil {
			p.notes = append(p.notes, n)
		}
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	err := p.understand(opt.Proof)
	if err == nil || ctx.Err() != nil {
		return err
	}
	for _, n := range p.notes {
		if n.again(ctx) != nil {
			return err
		}
	}
	return p.understand(opt.Proof)
}

// understand reads what the texts say, and says whether that is what was asked for.
func (p *Proof) understand(o ProofOptions) error {
	text := p.notes[0]
	if o.Key != "" {
		key, err := manifest.ParseKey(o.Key)
		if err != nil {
			return err
		}
		if err := key.Verify(text.content, p.notes[1].content); err != nil {
			return fmt.Errorf("%s: %w", text.at, err)
		}
		p.key = key.ID()
	}
	m, err := manifest.Parse(text.content)
	if err != nil {
		return fmt.Errorf("%s: %w", text.at, err)
	}
	if root, pinned := o.Manifest.root(); pinned && m.Root.String() != root {
		return fmt.Errorf("%s: %w: its root is %s", text.at, errOtherRoot, m.Root)
	}
	p.manifest = m
	return nil
}

// close lets go of all files.
func (p *Proof) close() {
	if p == nil {
		return
	}
	if p.tree != nil {
		p.tree.Close()
	}
	if p.hashes != nil {
		p.hashes.Close()
	}
	for _, n := range p.notes {
		n.file.Close()
	}
}

// pin keeps what is in the cache of the proof, and what will be.
func (p *Proof) pin() error {
	return p.each(func(f *file) error { return f.cached.entry.Pin() })
}

// Bring brings all of the proof into the cache, and keeps it there.
func (p *Proof) Bring(ctx context.Context) error {
	return p.each(func(f *file) error {
		whole := blockio.Extent{Len: f.Size()}
		for off := int64(0); off < whole.Len; off += piece {
			part := make([]byte, min(piece, whole.Len-off))
			if _, err := f.source.ReadAtContext(ctx, part, off); err != nil {
				return fmt.Errorf("read the manifest's files: %w", err)
			}
		}
		if entry := f.cached.entry; entry.Removed() || !entry.HaveBytes([]blockio.Extent{whole}, whole) {
			return fmt.Errorf("%w in %s", ErrNotStored, f.cached.dir.Path())
		}
		return f.cached.entry.Completed(true, true)
	})
}

// each calls do for those files of the proof that come from a web server: all of them are to be in
// the cache.
func (p *Proof) each(do func(f *file) error) error {
	for _, f := range p.files() {
		switch {
		case f.cached != nil:
			if err := do(f); err != nil {
				return err
			}
		case f.remote != nil && f.uncached != nil:
			return fmt.Errorf("the manifest's files: %w", f.uncached)
		}
	}
	return nil
}

// files are those of the proof.
func (p *Proof) files() []*file {
	if p == nil {
		return nil
	}
	files := []*file{p.hashes}
	for _, n := range p.notes {
		files = append(files, n.file)
	}
	return files
}

// Fetched is what the servers of the proof have done.
func (p *Proof) Fetched() (requests, failed, bytes int64) {
	var all []blockio.Server
	for _, f := range p.files() {
		if f.remote != nil {
			all = append(all, f.remote.Servers()...)
		}
	}
	return blockio.Fetched(all)
}

// check returns the blocks of the line's image, checked.
func (p *Proof) check(runs blockio.Runs, index *cloop.Index) blockio.Runs {
	if p == nil {
		return runs
	}
	p.checked = manifest.NewChecked(runs, index, p.tree)
	index.TrustCodecs(p.checked.Codec)
	return p.checked
}

// note is a text that is a file of its own.
type note struct {
	at      Location
	file    *file
	content []byte
}

// openNote reads a text.
func openNote(ctx context.Context, at Location, opt Options, log *slog.Logger) (*note, error) {
	f, err := openBeside(ctx, at, opt, log)
	if err != nil {
		return nil, err
	}
	n := &note{at: at, file: f}
	if f.Size() > manifest.MaxSize {
		err = fmt.Errorf("%w: it has %s", manifest.ErrFormat, units.FormatSize(f.Size()))
	} else {
		err = n.read(ctx, f.source.ReadAtContext)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return n, nil
}

func (n *note) read(ctx context.Context, readAt func(context.Context, []byte, int64) (int, error)) error {
	content := make([]byte, n.file.Size())
	if _, err := readAt(ctx, content, 0); err != nil {
		return err
	}
	n.content = content
	return nil
}

// again reads the text past all that keeps it.
func (n *note) again(ctx context.Context) error {
	return n.read(ctx, func(ctx context.Context, p []byte, off int64) (int, error) {
		return blockio.ReadAgain(ctx, n.file.source, p, off)
	})
}
