package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Network puts each broker into a network namespace of its own, all on one bridge on which the tests' clients are, too. A
// direction between two of them is cut by a wrong hardware address in the sender's neighbour table: what it sends vanishes
// silently, as behind a broken switch, while the other direction works.
type Network struct {
	name string // of the bridge, and the beginning of the namespaces' names
	net  string // the first three numbers of the addresses
	n    int
}

// ErrNoNetwork says that this machine or user cannot make namespaces.
var ErrNoNetwork = errors.New("network namespaces need Linux, root and ip(8)")

// NewNetwork makes a bridge and room for n brokers. Close removes everything.
func NewNetwork(n int) (*Network, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNoNetwork
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, ErrNoNetwork
	}
	pid := os.Getpid()
	w := &Network{name: fmt.Sprintf("sk%d", pid%100000), net: fmt.Sprintf("10.213.%d", pid%250+1)}
	if err := ip("link", "add", w.name, "type", "bridge"); err != nil {
		return nil, errors.Join(ErrNoNetwork, err)
	}
	err := errors.Join(ip("addr", "add", w.net+".254/24", "dev", w.name), ip("link", "set", w.name, "up"))
	for id := 1; id <= n && err == nil; id++ {
		err = w.join(id)
	}
	if err != nil {
		w.Close()
		return nil, errors.Join(ErrNoNetwork, err)
	}
	return w, nil
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (w *Network) space(id int) string { return fmt.Sprintf("%s-%d", w.name, id) }

// outside is the name of a broker's end on the bridge.
func (w *Network) outside(id int) string { return fmt.Sprintf("%s.%d", w.name, id) }

// Addr is a broker's address.
func (w *Network) Addr(id int) string { return fmt.Sprintf("%s.%d", w.net, id) }

func (w *Network) join(id int) error {
	ns, outside, inside := w.space(id), w.outside(id), "eth0"
	if err := ip("netns", "add", ns); err != nil {
		return err
	}
	w.n = id
	for _, args := range [][]string{
		{"link", "add", outside, "type", "veth", "peer", "name", inside, "netns", ns},
		{"link", "set", outside, "master", w.name, "up"},
		{"-n", ns, "addr", "add", w.Addr(id) + "/24", "dev", inside},
		{"-n", ns, "link", "set", "lo", "up"},
		{"-n", ns, "link", "set", inside, "up"},
	} {
		if err := ip(args...); err != nil {
			return err
		}
	}
	return nil
}

// inside is the command that runs another one where a broker is. It is not `ip netns exec`, which also makes a namespace of mounts: a
// copy there of another test's disk would outlive its unmount, and the disk could not be mounted anew.
func (w *Network) inside(id int) []string {
	return []string{"nsenter", "--net=/run/netns/" + w.space(id)}
}

// Place is where broker id runs.
func (w *Network) Place(id int) *Place {
	addr := w.Addr(id)
	return &Place{Kafka: addr + ":9092", Internal: addr + ":9093", HTTP: addr + ":9094", Prefix: w.inside(id)}
}

// nowhere is a hardware address that nobody has.
const nowhere = "02:00:00:00:00:01"

// Cut drops what from sends to to.
func (w *Network) Cut(from, to int) error {
	return ip("-n", w.space(from), "neigh", "replace", w.Addr(to), "lladdr", nowhere, "dev", "eth0", "nud", "permanent")
}

// Heal undoes Cut.
func (w *Network) Heal(from, to int) error {
	return ip("-n", w.space(from), "neigh", "del", w.Addr(to), "dev", "eth0")
}

// Close removes the namespaces and the bridge. Brokers in them must have ended. What is in a namespace goes some time after it: the
// pairs of interfaces are removed first, or the next network of this process meets their names.
func (w *Network) Close() {
	for id := 1; id <= w.n; id++ {
		_ = ip("link", "del", w.outside(id))
		_ = ip("netns", "del", w.space(id))
	}
	_ = ip("link", "del", w.name)
}
