package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/test/process"
)

// Etcd is a cluster of the real etcd server, which brokers are given with --etcd.
type Etcd struct {
	Bin  string
	Dir  string
	Args []string // of every member
	TLS  *Authority

	members []*etcdMember
}

type etcdMember struct {
	name, client, peer string
	cmd                *exec.Cmd
	log                *os.File
}

// BuildEtcd builds etcd's server, as tools/go.mod has it, into dir.
func BuildEtcd(dir string) (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	bin := filepath.Join(dir, "etcd")
	cmd := exec.Command("go", "build", "-modfile=tools/go.mod", "-o", bin, "go.etcd.io/etcd/server/v3")
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(out)))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build etcd: %w: %s", err, out)
	}
	return bin, nil
}

// NewEtcd lays out n members.
func NewEtcd(bin, dir string, n int, authority *Authority, args ...string) (*Etcd, error) {
	e := &Etcd{Bin: bin, Dir: dir, Args: args, TLS: authority}
	addrs, err := process.Ports(2 * n)
	if err != nil {
		return nil, err
	}
	for i := range n {
		e.members = append(e.members, &etcdMember{name: fmt.Sprintf("etcd%d", i+1), client: addrs[2*i], peer: addrs[2*i+1]})
	}
	return e, os.MkdirAll(dir, 0o755)
}

// URLs are what --etcd takes.
func (e *Etcd) URLs() string {
	var out []string
	for _, m := range e.members {
		out = append(out, e.scheme()+m.client)
	}
	return strings.Join(out, ",")
}

func (e *Etcd) scheme() string {
	if e.TLS != nil {
		return "https://"
	}
	return "http://"
}

// Start starts member i, from 1, and does not wait for it.
func (e *Etcd) Start(i int) error {
	m := e.members[i-1]
	var all []string
	for _, o := range e.members {
		all = append(all, o.name+"=http://"+o.peer)
	}
	args := []string{"--name", m.name, "--data-dir", filepath.Join(e.Dir, m.name), "--initial-cluster", strings.Join(all, ","), "--initial-cluster-token", "t",
		"--listen-client-urls", e.scheme() + m.client, "--advertise-client-urls", e.scheme() + m.client,
		"--listen-peer-urls", "http://" + m.peer, "--initial-advertise-peer-urls", "http://" + m.peer, "--log-level", "error"}
	if e.TLS != nil {
		args = append(args, "--cert-file", e.TLS.File("server.pem"), "--key-file", e.TLS.File("server-key.pem"), "--trusted-ca-file", e.TLS.File("ca.pem"), "--client-cert-auth")
	}
	log, err := os.OpenFile(filepath.Join(e.Dir, m.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	m.log = log
	m.cmd = exec.Command(e.Bin, append(args, e.Args...)...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.SysProcAttr = process.Tied()
	if err := m.cmd.Start(); err != nil {
		m.cmd = nil
		return fmt.Errorf("start %s: %w", m.name, err)
	}
	return nil
}

// Kill ends member i at once.
func (e *Etcd) Kill(i int) {
	m := e.members[i-1]
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	m.log.Close()
	m.cmd = nil
}

// StartAll starts those that do not run and waits until there is a quorum.
func (e *Etcd) StartAll() error {
	for i, m := range e.members {
		if m.cmd == nil {
			if err := e.Start(i + 1); err != nil {
				return err
			}
		}
	}
	c, err := e.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	for end := time.Now().Add(startPatience); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err := c.Get(ctx, "x")
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("etcd does not answer: %w", err)
		}
	}
}

// Client is an operator's.
func (e *Etcd) Client() (*clientv3.Client, error) {
	cfg := clientv3.Config{Endpoints: strings.Split(e.URLs(), ","), DialTimeout: 2 * time.Second}
	if e.TLS != nil {
		pair, err := tls.LoadX509KeyPair(e.TLS.File("client.pem"), e.TLS.File("client-key.pem"))
		if err != nil {
			return nil, err
		}
		cfg.TLS = &tls.Config{RootCAs: e.TLS.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	return clientv3.New(cfg)
}

// Close kills all.
func (e *Etcd) Close() {
	for i := range e.members {
		e.Kill(i + 1)
	}
}

// Authority signs certificates for loopback, and keeps the files in one directory.
type Authority struct {
	Dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes a CA, whose certificate is ca.pem.
func NewAuthority(dir string) (*Authority, error) {
	a := &Authority{Dir: dir}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &a.key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return a, errors.Join(os.MkdirAll(dir, 0o700), a.write("ca.pem", "CERTIFICATE", der))
}

// Issue makes NAME.pem and NAME-key.pem, for both ends of a connection, in place of what was there.
func (a *Authority) Issue(name string, life time.Duration) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(life), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(a.write(name+"-key.pem", "EC PRIVATE KEY", secret), a.write(name+".pem", "CERTIFICATE", der))
}

func (a *Authority) write(name, kind string, der []byte) error {
	fresh := a.File(name) + ".new"
	if err := os.WriteFile(fresh, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, a.File(name))
}

// File is the path of one of its files.
func (a *Authority) File(name string) string { return filepath.Join(a.Dir, name) }

// Pool holds its certificate.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}
