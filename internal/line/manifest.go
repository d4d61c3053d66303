package line

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/manifest"
)

// ProofOptions say by what the content of an image is proven.
type ProofOptions struct {
	Manifest   manifestValue // a file's path, absolute after Validate, URL, or one that says that it lies beside the image; empty: none
	Pubkey     cli.Name
	Key        string // that Pubkey stands for, filled in by Validate
	AllowOlder bool
}

// manifestAuto is the value of --manifest for the one beside the image, whichever it is.
const manifestAuto = "auto"

// RootPrefix begins a root: as a value of --manifest it asks for one manifest beside the
// image.
const RootPrefix = "sha256:"

// manifestValue is the value of --manifest. It shows no secrets of a URL.
type manifestValue string

func (v *manifestValue) Set(s string) error {
	if root, ok := strings.CutPrefix(s, RootPrefix); ok {
		if _, err := manifest.ParseHash(root); err != nil {
			return err
		}
	}
	return (*cli.Name)(v).Set(s)
}

func (v *manifestValue) String() string {
	if v.isURL() {
		return Shown(string(*v))
	}
	return string(*v)
}

func (v *manifestValue) Type() string { return "string" }

func (v *manifestValue) isURL() bool { return strings.Contains(string(*v), "://") }

// root is the root that is asked for, if one is.
func (v *manifestValue) root() (string, bool) { return strings.CutPrefix(string(*v), RootPrefix) }

// beside says that the manifest lies beside the image.
func (v *manifestValue) beside() bool {
	_, pinned := v.root()
	return pinned || *v == manifestAuto
}

// File is the manifest's path; empty if it is elsewhere, or there is none.
func (o *ProofOptions) File() string {
	if o.Manifest.beside() || o.Manifest.isURL() {
		return ""
	}
	return string(o.Manifest)
}

// OfOneImage says that the manifest is of one image, whatever SOURCE is.
func (o *ProofOptions) OfOneImage() bool {
	return o.Manifest != "" && o.Manifest != manifestAuto
}

func (o *ProofOptions) addFlags(f *pflag.FlagSet) {
	f.Var(&o.Manifest, "manifest", "check every block by the image's manifest: `FILE|URL`, auto (SOURCE.manifest) or sha256:ROOT (default auto with --pubkey)")
	f.Var(&o.Pubkey, "pubkey", "who has to have signed the manifest: minisign's public `KEY|FILE`")
	f.BoolVar(&o.AllowOlder, "allow-older", false, "accept a manifest of a lower version than was seen before")
}

// complete checks the flags, and reads the key.
func (o *ProofOptions) complete(ctx context.Context) error {
	if o.Pubkey == "" && o.AllowOlder {
		return cli.Usage(errors.New("--allow-older without --pubkey: only signed versions are remembered"))
	}
	if o.Pubkey != "" {
		key, err := readKey(ctx, string(o.Pubkey))
		if err != nil {
			return cli.Usage(fmt.Errorf("--pubkey %w", err))
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
		_, err := Parse(string(o.Manifest))
		return err
	}
	return (*cli.Name)(&o.Manifest).MakeAbsolute()
}

// readKey returns the key that --pubkey gives: itself, or in a file.
func readKey(ctx context.Context, given string) (manifest.Key, error) {
	if key, err := manifest.ParseKey(given); err == nil {
		return key, nil
	}
	text, err := readSmall(ctx, given)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: neither a public key of minisign nor a file", Shown(given))
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
func (o *ProofOptions) place(at Location) (Location, error) {
	switch {
	case o.Manifest.isURL():
		return Parse(string(o.Manifest))
	case !o.Manifest.beside():
		return Location{Path: string(o.Manifest)}, nil
	case at.URL == "":
		return Location{Path: at.Path + besideName(at, ".manifest")}, nil
	}
	if there := besideURL(at, ".manifest"); there != "" {
		return Location{URL: there}, nil
	}
	return Location{}, cli.Usage(errors.New("a URL with a query has no manifest beside it: --manifest FILE or URL"))
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
		errNoManifest, errOtherRoot, errOlder, errTwoRoots, errSeen,
	} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

// refuted says that err is about a proof that is there, and wrong: whatever comes of the image.
func refuted(err error) bool { return notProven(err) && !errors.Is(err, errNoManifest) }

// proofHint says what may help where an image is not proven.
func proofHint(err error) string {
	switch {
	case errors.Is(err, errOlder):
		return "--allow-older accepts it"
	case errors.Is(err, errTwoRoots):
		return "ask who signs the image which one is right; --allow-older accepts this one"
	case errors.Is(err, manifest.ErrVersion):
		return "a newer cloopfs reads it"
	case errors.Is(err, errSeen):
		return "--allow-older accepts this version"
	case errors.Is(err, manifest.ErrSignature):
		return "is it the right key? If the image has just been replaced, try again"
	}
	return ""
}
