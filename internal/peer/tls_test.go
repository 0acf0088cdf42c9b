package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "authority"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &authority{cert, key}
}

func write(t *testing.T, name, kind string, ders ...[]byte) {
	t.Helper()
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue writes cert, key and CA files into dir; trusted defaults to the authority itself.
func (a *authority) issue(t *testing.T, dir, name string, trusted ...*authority) TLSFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f := TLSFiles{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem")}
	write(t, f.Cert, "CERTIFICATE", der)
	write(t, f.Key, "EC PRIVATE KEY", keyDER)
	if len(trusted) == 0 {
		trusted = []*authority{a}
	}
	var cas [][]byte
	for _, tr := range trusted {
		cas = append(cas, tr.cert.Raw)
	}
	write(t, f.CA, "CERTIFICATE", cas...)
	return f
}

func (a *authority) load(t *testing.T, dir, name string) *TLS {
	t.Helper()
	l, err := LoadTLS(a.issue(t, dir, name), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// forget makes the next connection look at the files.
func (t *TLS) forget() {
	t.mu.Lock()
	t.checked = time.Time{}
	t.mu.Unlock()
}

// TestRotation replaces certificates and the authority behind them while both ends run.
func TestRotation(t *testing.T) {
	old, fresh := newAuthority(t), newAuthority(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	ends := []*TLS{old.load(t, dirs[0], "server"), old.load(t, dirs[1], "client")}
	s, addr := start(t, testConfig(t, 2, "c", ends[0]))
	peerpb.RegisterOwnerServer(s.GRPC(), &owner{})
	talk := func() error {
		p := pool(t, testConfig(t, 1, "c", ends[1]), map[ident.Broker]string{2: addr})
		defer p.Close()
		cc, err := p.Conn(2)
		if err != nil {
			return err
		}
		_, err = peerpb.NewOwnerClient(cc).Move(t.Context(), &peerpb.MoveRequest{})
		return err
	}
	step := func(name string, end int, a *authority, works bool, trusted ...*authority) {
		t.Helper()
		a.issue(t, dirs[end], name, trusted...)
		ends[end].forget()
		if err := talk(); (err == nil) != works {
			t.Errorf("%s: %v, want success %v", name, err, works)
		}
	}
	if err := talk(); err != nil {
		t.Fatal(err)
	}
	step("server trusts both", 0, old, true, old, fresh)
	step("client is new and trusts both", 1, fresh, true, old, fresh)
	step("server is new", 0, fresh, true, fresh)
	step("client of the old authority", 1, old, false, old, fresh)
	step("client is new again", 1, fresh, true, fresh)

	// A file that is being written is no reason to stop.
	if err := os.WriteFile(ends[1].files.Cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	ends[1].forget()
	if err := talk(); err != nil {
		t.Errorf("with half a file: %v", err)
	}
}

func TestTLSRefusesPlainAndUnknown(t *testing.T) {
	a := newAuthority(t)
	s, addr := start(t, testConfig(t, 2, "c", a.load(t, t.TempDir(), "server")))
	peerpb.RegisterOwnerServer(s.GRPC(), &owner{})
	for name, files := range map[string]*TLS{"plain": nil, "another authority": newAuthority(t).load(t, t.TempDir(), "stranger")} {
		p := pool(t, testConfig(t, 1, "c", files), map[ident.Broker]string{2: addr})
		cc, err := p.Conn(2)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := peerpb.NewOwnerClient(cc).Move(t.Context(), &peerpb.MoveRequest{}); err == nil {
			t.Errorf("%s: served", name)
		}
	}
}

func TestLoadTLSNamesProblems(t *testing.T) {
	if tl, err := LoadTLS(TLSFiles{}, nil); tl != nil || err != nil {
		t.Errorf("no files: %v, %v", tl, err)
	}
	for _, f := range []TLSFiles{{Cert: "c"}, {Cert: "c", Key: "k"}, {Cert: "/nowhere/c", Key: "/nowhere/k", CA: "/nowhere/a"}} {
		if _, err := LoadTLS(f, nil); err == nil {
			t.Errorf("%+v: loaded", f)
		}
	}
}
