package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// TLSFiles are PEM files. All three are set, or none.
type TLSFiles struct {
	Cert string // this broker's certificate, for both directions, with its chain
	Key  string
	CA   string // who signs the brokers' certificates; several while one replaces another
}

// Empty reports whether no file is named.
func (f TLSFiles) Empty() bool { return f == TLSFiles{} }

// recheck is how often the files are looked at, at most, and only when a connection is made.
const recheck = time.Second

// TLS is mutual TLS from files, which are read again when they change: new connections use what the files hold at most
// a second before. While they hold nothing usable, what they held goes on.
type TLS struct {
	files TLSFiles
	log   *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamps  [3]stamp
	cert    *tls.Certificate
	pool    *x509.CertPool
}

// stamp tells whether a file changed.
type stamp struct {
	size int64
	at   time.Time
}

// LoadTLS reads the files; a nil TLS for no files. The error joins everything that is wrong with them.
func LoadTLS(f TLSFiles, log *slog.Logger) (*TLS, error) {
	if f.Empty() {
		return nil, nil
	}
	if f.Cert == "" || f.Key == "" || f.CA == "" {
		return nil, errors.New("internal TLS wants a certificate, a key and a CA file, or none of them")
	}
	t := &TLS{files: f, log: log}
	var err error
	if t.stamps, err = f.stamps(); err == nil {
		t.cert, t.pool, err = f.load()
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (f TLSFiles) stamps() (out [3]stamp, err error) {
	for i, name := range []string{f.Cert, f.Key, f.CA} {
		st, serr := os.Stat(name)
		if serr != nil {
			err = errors.Join(err, fmt.Errorf("internal TLS: %w", serr))
			continue
		}
		out[i] = stamp{st.Size(), st.ModTime()}
	}
	return out, err
}

func (f TLSFiles) load() (*tls.Certificate, *x509.CertPool, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		err = fmt.Errorf("internal TLS: %s and %s: %w", f.Cert, f.Key, err)
	}
	text, cerr := os.ReadFile(f.CA)
	pool := x509.NewCertPool()
	if cerr == nil && !pool.AppendCertsFromPEM(text) {
		cerr = fmt.Errorf("%s holds no certificate", f.CA)
	}
	if cerr != nil {
		cerr = fmt.Errorf("internal TLS: %w", cerr)
	}
	return &cert, pool, errors.Join(err, cerr)
}

// current is what the files hold.
func (t *TLS) current() (*tls.Certificate, *x509.CertPool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.checked) >= recheck {
		t.checked = now
		t.refresh()
	}
	return t.cert, t.pool
}

// refresh reads the files if they changed. The caller holds mu; it is three stats on a file system that brokers
// read certificates from, once a second at most.
func (t *TLS) refresh() {
	stamps, err := t.files.stamps()
	if err == nil && stamps == t.stamps {
		return
	}
	if err == nil {
		var cert *tls.Certificate
		var pool *x509.CertPool
		if cert, pool, err = t.files.load(); err == nil {
			t.cert, t.pool, t.stamps = cert, pool, stamps
			t.log.Info("internal TLS files read again", "component", "peer")
			return
		}
	}
	t.log.Warn("internal TLS files changed and cannot be used: the old ones go on", "component", "peer", "error", err)
}

// server wraps an accepted connection; the handshake is still to be made.
func (t *TLS) server(c net.Conn) *tls.Conn {
	cert, pool := t.current()
	return tls.Server(c, &tls.Config{
		Certificates: []tls.Certificate{*cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})
}

// client wraps a connection to host; the handshake is still to be made.
func (t *TLS) client(c net.Conn, host string) *tls.Conn {
	cert, pool := t.current()
	return tls.Client(c, &tls.Config{
		Certificates: []tls.Certificate{*cert}, RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12,
	})
}

// Files names the files, for what reads them itself.
func (t *TLS) Files() TLSFiles {
	if t == nil {
		return TLSFiles{}
	}
	return t.files
}
