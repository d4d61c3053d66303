package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/manifest"
)

// proofOptions say by what the content of an image is proven.
type proofOptions struct {
	Manifest   manifestValue // a file's path, absolute after complete, URL, or one of the values below; empty: none
	Pubkey     nameValue
	Key        string // that Pubkey stands for, filled in by complete
	AllowOlder bool
}

// Values of --manifest that are neither a file's path nor a URL.
const (
	manifestAuto = "auto"
	manifestRoot = "sha256:" // begins a root
)

// manifestValue is the value of --manifest. It shows no secrets of a URL.
type manifestValue string

func (v *manifestValue) Set(s string) error {
	if root, ok := strings.CutPrefix(s, manifestRoot); ok {
		if _, err := manifest.ParseHash(root); err != nil {
			return err
		}
	}
	return (*nameValue)(v).Set(s)
}

func (v *manifestValue) String() string {
	if v.isURL() {
		return shown(string(*v))
	}
	return string(*v)
}

func (v *manifestValue) Type() string { return "string" }

func (v *manifestValue) isURL() bool { return strings.Contains(string(*v), "://") }

// root is the root that is asked for, if one is.
func (v *manifestValue) root() (string, bool) { return strings.CutPrefix(string(*v), manifestRoot) }

// beside says that the manifest lies beside the image.
func (v *manifestValue) beside() bool {
	_, pinned := v.root()
	return pinned || *v == manifestAuto
}

// file is the manifest's path; empty if it is elsewhere, or there is none.
func (v *manifestValue) file() string {
	if v.beside() || v.isURL() {
		return ""
	}
	return string(*v)
}

func (o *proofOptions) addFlags(f *pflag.FlagSet) {
	f.Var(&o.Manifest, "manifest", "check every block by the image's manifest: `FILE|URL`, auto (SOURCE.manifest) or sha256:ROOT (default auto with --pubkey)")
	f.Var(&o.Pubkey, "pubkey", "who has to have signed the manifest: minisign's public `KEY|FILE`")
	f.BoolVar(&o.AllowOlder, "allow-older", false, "accept a manifest of a lower version than was seen before")
}

// complete checks the flags, and reads the key.
func (o *proofOptions) complete(ctx context.Context) error {
	if o.Pubkey == "" && o.AllowOlder {
		return usage(errors.New("--allow-older without --pubkey: only signed versions are remembered"))
	}
	if o.Pubkey != "" {
		key, err := readKey(ctx, string(o.Pubkey))
		if err != nil {
			return usage(fmt.Errorf("--pubkey %w", err))
		}
		o.Key = key.String()
		if o.Manifest == "" {
			o.Manifest = manifestAuto
		}
	}
	switch {
	case o.Manifest == "" || o.Manifest.beside():
		return nil
	case o.Manifest.isURL():
		_, err := parseSource(string(o.Manifest))
		return err
	}
	return makeAbsolute((*nameValue)(&o.Manifest))
}

// readKey returns the key that --pubkey gives: itself, or in a file.
func readKey(ctx context.Context, given string) (manifest.Key, error) {
	if key, err := manifest.ParseKey(given); err == nil {
		return key, nil
	}
	text, err := readSmall(ctx, given)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: neither a public key of minisign nor a file", shown(given))
		}
		return manifest.Key{}, err
	}
	key, err := manifest.ParseKey(string(text))
	if err != nil {
		err = fmt.Errorf("%s: %w", given, err)
	}
	return key, err
}

// place is where the manifest of the image at a location is.
func (o *proofOptions) place(at location) (location, error) {
	switch {
	case o.Manifest.isURL():
		return parseSource(string(o.Manifest))
	case !o.Manifest.beside():
		return location{Path: string(o.Manifest)}, nil
	case at.URL == "":
		return location{Path: at.Path + besideName(at, ".manifest")}, nil
	}
	if there := besideURL(at, ".manifest"); there != "" {
		return location{URL: there}, nil
	}
	return location{}, usage(errors.New("a URL with a query has no manifest beside it: --manifest FILE or URL"))
}

// with is the place of a file beside the one at l: its name has something more at its end.
func (l location) with(suffix string) location {
	if l.URL == "" {
		return location{Path: l.Path + suffix}
	}
	u, err := url.Parse(l.URL)
	if err != nil {
		return location{URL: l.URL + suffix} // it was parsed before
	}
	u.RawPath = u.EscapedPath() + suffix
	u.Path += suffix
	return location{URL: u.String()}
}

var (
	// errNoManifest says that there is no manifest where one has to be, or no signature or hashes beside it.
	errNoManifest = errors.New("not there, and the image is to be checked by it")
	// errOtherRoot says that a manifest is not the one that was asked for.
	errOtherRoot = errors.New("not the manifest that was asked for")
)

// notProven says that err is about the proof of an image: that it is wrong, or missing.
func notProven(err error) bool {
	for _, why := range []error{
		manifest.ErrFormat, manifest.ErrVersion, manifest.ErrSignature, manifest.ErrHashes, manifest.ErrMismatch,
		errNoManifest, errOtherRoot, errOlder, errTwoRoots,
	} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

// proofHint says what may help where an image is not proven.
func proofHint(err error) string {
	switch {
	case errors.Is(err, errOlder):
		return "--allow-older accepts it"
	case errors.Is(err, errTwoRoots):
		return "ask who signs the image which one is right; --allow-older accepts this one"
	case errors.Is(err, manifest.ErrVersion):
		return "a newer cloopfs reads it"
	case errors.Is(err, manifest.ErrSignature):
		return "is it the right key? If the image has just been replaced, try again"
	}
	return ""
}

// badBlock says that err is about a block of the image, or its entry in the index, that is
// wrong: others may be right.
func badBlock(err error) bool {
	return errors.Is(err, cloop.ErrCorrupt) || errors.Is(err, manifest.ErrMismatch)
}

// proof is what the content of an image is proven by.
type proof struct {
	manifest *manifest.Manifest
	key      string  // the number of the key that has signed it; empty: nobody's
	notes    []*note // the texts
	hashes   *file
	tree     *manifest.Tree
	checked  *manifest.Checked // when the line is joined
}

// proving is a proof on its way.
type proving struct {
	read   chan struct{} // closed when the manifest is known, and proven
	opened chan struct{} // closed when all is known
	proof  *proof
	err    error // of the manifest; after opened, of all
}

// prove begins to get the proof of the image at a location, nil if none is asked for. It
// takes as long as ctx at most.
func (o *sourceOptions) prove(ctx context.Context, at location, log *slog.Logger) (*proving, error) {
	if o.Proof.Manifest == "" {
		return nil, nil
	}
	there, err := o.Proof.place(at)
	if err != nil {
		return nil, err
	}
	p := &proving{read: make(chan struct{}), opened: make(chan struct{}), proof: new(proof)}
	opt := *o
	opt.Cache.Key, opt.Mirrors = "", nil // which are the image's alone
	if there.URL == "" || !sameServer(at.URL, there.URL) {
		opt.Access = opt.Access.elsewhere()
	}
	go func() {
		defer close(p.opened)
		p.err = p.get(ctx, there, opt, log)
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
func (p *proving) result() (*proof, error) {
	if p == nil {
		return nil, nil
	}
	<-p.opened
	if p.err != nil {
		p.proof.Close()
		return nil, p.err
	}
	return p.proof, nil
}

// get gets the manifest, its signature and the hashes, all at once.
func (p *proving) get(ctx context.Context, there location, opt sourceOptions, log *slog.Logger) error {
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
func openBeside(ctx context.Context, at location, opt sourceOptions, log *slog.Logger) (*file, error) {
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
	var status *httpblock.StatusError
	if errors.As(err, &status) && (status.Code == http.StatusNotFound || status.Code == http.StatusGone) || errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w (%w)", errNoManifest, err)
	}
	return nil, fmt.Errorf("%s: %w", at, err)
}

// read gets the manifest, and its signature if it has to have one. What does not fit is
// got once more, past all that keeps it: it may have been damaged on its way, or just
// been replaced.
func (p *proof) read(ctx context.Context, there location, opt sourceOptions, log *slog.Logger) error {
	places := []location{there}
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
func (p *proof) understand(o proofOptions) error {
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

// Close lets go of all files.
func (p *proof) Close() {
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
func (p *proof) pin() error {
	return p.each(func(f *file) error { return f.cached.entry.Pin() })
}

// bring brings all of the proof into the cache, and keeps it there.
func (p *proof) bring(ctx context.Context) error {
	return p.each(func(f *file) error {
		whole := blockio.Extent{Len: f.Size()}
		for off := int64(0); off < whole.Len; off += restPiece {
			piece := make([]byte, min(restPiece, whole.Len-off))
			if _, err := f.source.ReadAtContext(ctx, piece, off); err != nil && err != io.EOF {
				return fmt.Errorf("read the manifest's files: %w", err)
			}
		}
		if entry := f.cached.entry; entry.Removed() || !entry.HaveBytes([]blockio.Extent{whole}, whole) {
			return fmt.Errorf("%w in %s", errNotStored, f.cached.dir.Path())
		}
		return f.cached.entry.Completed(true, true)
	})
}

// each calls do for those files of the proof that come from a web server: all of them are to be in
// the cache.
func (p *proof) each(do func(f *file) error) error {
	if p == nil {
		return nil
	}
	files := []*file{p.hashes}
	for _, n := range p.notes {
		files = append(files, n.file)
	}
	for _, f := range files {
		switch {
		case f.cached != nil:
			if err := do(f); err != nil {
				return err
			}
		case f.http != nil && f.uncached != nil:
			return fmt.Errorf("the manifest's files: %w", f.uncached)
		}
	}
	return nil
}

// check returns the blocks of the line's image, checked.
func (p *proof) check(runs blockio.Runs, index *cloop.Index) blockio.Runs {
	if p == nil {
		return runs
	}
	p.checked = manifest.NewChecked(runs, index, p.tree)
	return p.checked
}

// note is a text that is a file of its own.
type note struct {
	at      location
	file    *file
	content []byte
}

// openNote reads a text.
func openNote(ctx context.Context, at location, opt sourceOptions, log *slog.Logger) (*note, error) {
	f, err := openBeside(ctx, at, opt, log)
	if err != nil {
		return nil, err
	}
	n := &note{at: at, file: f}
	if f.Size() > manifest.MaxSize {
		err = fmt.Errorf("%w: it has %s", manifest.ErrFormat, formatSize(f.Size()))
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
	if k, err := readAt(ctx, content, 0); err != nil && (err != io.EOF || k < len(content)) {
		return err
	}
	n.content = content
	return nil
}

// again reads the text past all that keeps it.
func (n *note) again(ctx context.Context) error {
	if f := n.file.cached; f != nil {
		f.Forget(blockio.Extent{Len: n.file.Size()})
		return n.read(ctx, f.ReadAtContext)
	}
	return n.read(ctx, func(ctx context.Context, p []byte, _ int64) (int, error) {
		body, err := n.file.source.OpenRange(ctx, blockio.Range{Extent: blockio.Extent{Len: int64(len(p))}, Refetch: true})
		if err != nil {
			return 0, err
		}
		defer body.Close()
		return io.ReadFull(body, p)
	})
}

// factsOf is what a manifest says of an image.
func factsOf(ctx context.Context, size int64, index *cloop.Index) (manifest.Facts, error) {
	first, err := index.Extent(ctx, 0)
	return manifest.Facts{
		Size: size, Container: containerOf(index), BlockSize: int64(index.BlockSize()),
		Blocks: index.Blocks(), Start: first.Off,
	}, err
}

// containerRaw is what manifests call an image that is the disk itself.
const containerRaw = "raw"

// containerOf is what manifests call the image's format.
func containerOf(index *cloop.Index) string {
	switch index.Format() {
	case "V2.0":
		return "cloop-v2"
	case "V4.0":
		return "cloop-v4"
	}
	return containerRaw
}

// rightSize says whether the image has the size that was signed: before anything else of
// it is looked at.
func (p *proof) rightSize(size int64) error {
	if p == nil {
		return nil
	}
	return differs("the image's bytes", size, p.manifest.Size)
}

// agrees says whether the image is the one that the manifest is of, as far as header and
// index tell.
func (p *proof) agrees(ctx context.Context, size int64, index *cloop.Index) error {
	if p == nil {
		return nil
	}
	is, err := factsOf(ctx, size, index)
	if err != nil {
		return err
	}
	said := p.manifest.Facts
	for _, err := range []error{
		differs("the format", is.Container, said.Container),
		differs("the bytes of a block", is.BlockSize, said.BlockSize),
		differs("the number of blocks", is.Blocks, said.Blocks),
		differs("the offset of the first block", is.Start, said.Start),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// differs says that something is not what was signed.
func differs[T comparable](what string, is, said T) error {
	if is == said {
		return nil
	}
	return fmt.Errorf("%w: %s: %v in the image, %v in the manifest", manifest.ErrMismatch, what, is, said)
}

// manifestReport is what an image is checked by. Its JSON names are part of the contract
// with scripts.
type manifestReport struct {
	Name    string `json:"name"`
	Version int64  `json:"version"`
	Date    string `json:"date"`
	Root    string `json:"root"`
	Key     string `json:"key,omitempty"` // the number of the key that has signed it; none if no signature was asked for
	Proven  int64  `json:"proven"`        // stored blocks that were compared and right, so far
	Refused int64  `json:"refused"`       // those that were not, and were thrown away
}

// report says by what the image is checked; nil if by nothing.
func (p *proof) report() *manifestReport {
	if p == nil {
		return nil
	}
	stats := p.checked.Stats()
	return &manifestReport{
		Name: p.manifest.Name, Version: p.manifest.Version, Date: p.manifest.Date.Format(time.DateOnly),
		Root: manifestRoot + p.manifest.Root.String(), Key: p.key, Proven: stats.Proven, Refused: stats.Refused,
	}
}

// String is what an image is checked by, for people.
func (r *manifestReport) String() string {
	signed := "not signed"
	if r.Key != "" {
		signed = "signed by key " + r.Key
	}
	return fmt.Sprintf("%s, version %d of %s, %s", r.Name, r.Version, r.Date, signed)
}

// bytes is the bytes of an image that is not compressed. Where they are proven they are
// read as blocks.
func (l *line) bytes() blockio.Source {
	if l.proof == nil {
		return l.source
	}
	return provenBytes{l.disk}
}

// provenBytes is a disk as a source.
type provenBytes struct{ blockio.ReaderAt }

// OpenRange reads the bytes at once: who looks into an image wants few.
func (b provenBytes) OpenRange(ctx context.Context, r blockio.Range) (io.ReadCloser, error) {
	p := make([]byte, r.Len)
	if _, err := b.ReadAtContext(ctx, p, r.Off); err != nil && err != io.EOF {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(p)), nil
}
