package line

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/cli"
)

// AccessOptions are the flags about who we are to a web server, and whom we
// believe.
type AccessOptions struct {
	Headers   headerFlag
	Netrc     bool
	TokenFile string // absolute after Validate, as the names below
	CACert    string
	Cert      string
	Key       string
	Insecure  bool
	UserAgent string

	// Filled in by Validate: what the files say, for a process that may not
	// be able to read them any more.
	Header    http.Header
	NetrcText string
	Token     string
	TokenOnce bool   // it was read from a pipe, say
	CAs       []byte // PEM, as those below
	CertPEM   []byte
	KeyPEM    []byte
	Proxies   map[string]string
}

func (o *AccessOptions) addFlags(f *pflag.FlagSet, userAgent string) {
	f.Var(&o.Headers, "header", "send this header, 'Name: value', or those in @FILE, one a line; may be repeated")
	f.BoolVar(&o.Netrc, "netrc", false, "sign in as $NETRC says, else ~/.netrc")
	f.StringVar(&o.TokenFile, "bearer-token-file", "", "sign in with the token in this file")
	f.StringVar(&o.CACert, "cacert", "", "believe these certificate authorities only (PEM)")
	f.StringVar(&o.Cert, "cert", "", "sign in with this client certificate, and its key if it is in the file (PEM)")
	f.StringVar(&o.Key, "key", "", "the key of --cert (PEM)")
	f.BoolVar(&o.Insecure, "insecure", false, "believe every https server")
	f.StringVar(&o.UserAgent, "user-agent", userAgent, "the header User-Agent")
}

// complete checks the flags and reads the files that they name, each once: it
// may be a pipe.
func (o *AccessOptions) complete(ctx context.Context) error {
	if err := o.absolute(); err != nil {
		return err
	}
	if o.Key != "" && o.Cert == "" {
		return cli.Usage(errors.New("--key without --cert"))
	}
	o.Proxies = proxies()
	if httpblock.CheckHeader("X", o.UserAgent) != nil {
		return cli.Usage(errors.New("--user-agent: not the value of a header"))
	}
	var err error
	if o.Header, err = o.Headers.read(ctx); err != nil {
		return cli.Usage(err)
	}
	if o.NetrcText, err = o.readNetrc(ctx); err != nil {
		return cli.Usage(fmt.Errorf("--netrc: %w", err))
	}
	if o.TokenFile != "" {
		if o.Token, o.TokenOnce, err = readToken(ctx, o.TokenFile); err != nil {
			return cli.Usage(fmt.Errorf("--bearer-token-file %w", err))
		}
	}
	for _, f := range []struct {
		flag, name string
		to         *[]byte
	}{{"cacert", o.CACert, &o.CAs}, {"cert", o.Cert, &o.CertPEM}, {"key", o.Key, &o.KeyPEM}} {
		if f.name == "" {
			continue
		}
		if *f.to, err = readSmall(ctx, f.name); err != nil {
			return cli.Usage(fmt.Errorf("--%s %w", f.flag, err))
		}
	}
	_, err = o.tls()
	return err
}

// absolute makes the names of files absolute: the process in the background
// runs elsewhere. A URL that took a forgotten name's place is refused.
func (o *AccessOptions) absolute() error {
	for _, f := range []struct {
		flag string
		name *string
	}{{"bearer-token-file", &o.TokenFile}, {"cacert", &o.CACert}, {"cert", &o.Cert}, {"key", &o.Key}} {
		switch {
		case *f.name == "":
			continue
		case strings.Contains(*f.name, "://"):
			return cli.Usage(fmt.Errorf("--%s %s: not a file", f.flag, Shown(*f.name)))
		}
		abs, err := filepath.Abs(*f.name)
		if err != nil {
			return err
		}
		*f.name = abs
	}
	return nil
}

// apply says to opt what the flags said.
func (o *AccessOptions) apply(opt *httpblock.Options) error {
	opt.UserAgent, opt.Header, opt.Netrc = o.UserAgent, o.Header, o.NetrcText
	if o.TokenFile != "" {
		opt.Token = o.tokens()
	}
	var err error
	opt.TLS, err = o.tls()
	return err
}

// elsewhere is o for a server that is not the SOURCE's: who we are there is not for
// it to know. (What netrc says is about one host each.)
func (o AccessOptions) elsewhere() AccessOptions {
	o.Header, o.TokenFile, o.Cert = nil, "", ""
	return o
}

// tls returns nil if the flags say nothing about TLS.
func (o *AccessOptions) tls() (*tls.Config, error) {
	if !o.Insecure && o.CACert == "" && o.Cert == "" {
		return nil, nil
	}
	cfg := &tls.Config{InsecureSkipVerify: o.Insecure}
	if o.CACert != "" {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(o.CAs) {
			return nil, cli.Usage(fmt.Errorf("--cacert %s: no certificates in it", o.CACert))
		}
	}
	if o.Cert == "" {
		return cfg, nil
	}
	key := o.KeyPEM
	if o.Key == "" {
		key = o.CertPEM
	}
	pair, err := tls.X509KeyPair(o.CertPEM, key)
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--cert %s: %s", o.Cert, strings.TrimPrefix(err.Error(), "tls: ")))
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// readNetrc returns what the netrc file says, if that is asked for.
func (o *AccessOptions) readNetrc(ctx context.Context) (string, error) {
	if !o.Netrc {
		return "", nil
	}
	name := os.Getenv("NETRC")
	if name == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", errors.New("neither $NETRC nor $HOME is set")
		}
		name = filepath.Join(home, ".netrc")
	}
	text, err := readSmall(ctx, name)
	return string(text), err
}

// tokens returns what says the token: at first that which complete has read,
// then what is in the file by then.
func (o *AccessOptions) tokens() func() (string, error) {
	told := false
	return func() (string, error) {
		if !told || o.TokenOnce {
			told = true
			return o.Token, nil
		}
		token, _, err := readToken(context.Background(), o.TokenFile)
		return token, err
	}
}

// readToken returns the token in a file. once says that the file is not one
// that can be read again.
func readToken(ctx context.Context, name string) (token string, once bool, _ error) {
	f, err := readFile(ctx, name)
	if err != nil {
		return "", false, err
	}
	token = strings.TrimSpace(string(f.text))
	if token == "" {
		return "", false, fmt.Errorf("%s: empty", name)
	}
	return token, !f.mode.IsRegular(), nil
}

// mostSmall is far more than a file of certificates or credentials needs.
const mostSmall = 4 << 20

// readSmall returns what is in a file, which may be a pipe.
func readSmall(ctx context.Context, name string) ([]byte, error) {
	f, err := readFile(ctx, name)
	return f.text, err
}

// smallFile is a file that has been read.
type smallFile struct {
	mode os.FileMode
	text []byte
}

// readFile reads a file for as long as ctx lasts: a FIFO may have nobody who
// writes to it, and a network disk may be gone.
func readFile(ctx context.Context, name string) (smallFile, error) {
	var f smallFile
	read := make(chan error, 1)
	go func() {
		var err error
		f, err = readWhole(name)
		read <- err
	}()
	select {
	case err := <-read:
		return f, err
	case <-ctx.Done():
		return smallFile{}, ctx.Err()
	}
}

func readWhole(name string) (smallFile, error) {
	fail := func(err error) (smallFile, error) {
		return smallFile{}, fmt.Errorf("%s: %w", name, cli.WithoutPath(err))
	}
	f, err := os.Open(name)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	text, err := io.ReadAll(io.LimitReader(f, mostSmall+1))
	if err != nil {
		return fail(err)
	}
	if len(text) > mostSmall {
		return fail(errors.New("too large"))
	}
	return smallFile{info.Mode(), text}, nil
}
