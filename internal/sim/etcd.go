package sim

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// etcd is the map's store: keys with revisions, transactions with compares, leases. It is always right and never forgets; what
// goes wrong goes wrong on the way to it and back.
type etcd struct {
	e        *engine
	revision int64
	keys     []*mvccpb.KeyValue // sorted
	lease    int64
	leases   map[int64]bool
	down     bool                                       // it answers nobody
	written  func(key string, old, kv *mvccpb.KeyValue) // after each change; kv is nil for a deletion
	settled  func()                                     // after each transaction that changed something
}

func newEtcd(e *engine) *etcd { return &etcd{e: e, revision: 1, leases: map[int64]bool{}} }

func (s *etcd) header() *etcdserverpb.ResponseHeader {
	return &etcdserverpb.ResponseHeader{ClusterId: 1, MemberId: 1, Revision: s.revision, RaftTerm: 1}
}

func (s *etcd) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(s.keys, key, func(kv *mvccpb.KeyValue, k []byte) int { return bytes.Compare(kv.Key, k) })
}

func (s *etcd) get(key []byte) *mvccpb.KeyValue {
	if i, ok := s.find(key); ok {
		return s.keys[i]
	}
	return nil
}

// put writes at the revision after the present one.
func (s *etcd) put(r *etcdserverpb.PutRequest) error {
	i, ok := s.find(r.Key)
	kv := &mvccpb.KeyValue{Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), ModRevision: s.revision + 1, CreateRevision: s.revision + 1, Version: 1, Lease: r.Lease}
	var old *mvccpb.KeyValue
	if ok {
		old = s.keys[i]
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
		if r.IgnoreValue {
			kv.Value = old.Value
		}
		if r.IgnoreLease {
			kv.Lease = old.Lease
		}
		s.keys[i] = kv
	} else {
		if r.IgnoreValue || r.IgnoreLease {
			return rpctypes.ErrGRPCKeyNotFound
		}
		s.keys = slices.Insert(s.keys, i, kv)
	}
	if s.written != nil {
		s.written(string(kv.Key), old, kv)
	}
	return nil
}

func (s *etcd) remove(key, end []byte) (n int64) {
	s.keys = slices.DeleteFunc(s.keys, func(kv *mvccpb.KeyValue) bool {
		if !inRange(kv.Key, key, end) {
			return false
		}
		n++
		if s.written != nil {
			s.written(string(kv.Key), kv, nil)
		}
		return true
	})
	return n
}

func inRange(k, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(k, key)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(k, key) >= 0
	}
	return bytes.Compare(k, key) >= 0 && bytes.Compare(k, end) < 0
}

func (s *etcd) rangeOf(r *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	switch {
	case r.Revision > s.revision:
		return nil, rpctypes.ErrGRPCFutureRev
	case r.Revision > 0 && r.Revision < s.revision: // no history is kept
		return nil, rpctypes.ErrGRPCCompacted
	}
	out := &etcdserverpb.RangeResponse{Header: s.header()}
	from, _ := s.find(r.Key)
	for _, kv := range s.keys[from:] {
		if !inRange(kv.Key, r.Key, r.RangeEnd) {
			break
		}
		out.Count++
		switch {
		case r.CountOnly:
		case r.Limit > 0 && int64(len(out.Kvs)) == r.Limit:
			out.More = true
		case r.KeysOnly:
			out.Kvs = append(out.Kvs, &mvccpb.KeyValue{Key: kv.Key, ModRevision: kv.ModRevision, CreateRevision: kv.CreateRevision, Version: kv.Version, Lease: kv.Lease})
		default:
			out.Kvs = append(out.Kvs, kv) // records are never changed in place
		}
	}
	return out, nil
}

func (s *etcd) holds(c *etcdserverpb.Compare) bool {
	kv := s.get(c.Key)
	if kv == nil {
		if c.Target == etcdserverpb.Compare_VALUE {
			return false
		}
		kv = &mvccpb.KeyValue{}
	}
	var order int
	diff := func(a, b int64) {
		switch {
		case a < b:
			order = -1
		case a > b:
			order = 1
		}
	}
	switch c.Target {
	case etcdserverpb.Compare_VERSION:
		diff(kv.Version, c.GetVersion())
	case etcdserverpb.Compare_CREATE:
		diff(kv.CreateRevision, c.GetCreateRevision())
	case etcdserverpb.Compare_MOD:
		diff(kv.ModRevision, c.GetModRevision())
	case etcdserverpb.Compare_LEASE:
		diff(kv.Lease, c.GetLease())
	case etcdserverpb.Compare_VALUE:
		order = bytes.Compare(kv.Value, c.GetValue())
	}
	switch c.Result {
	case etcdserverpb.Compare_EQUAL:
		return order == 0
	case etcdserverpb.Compare_NOT_EQUAL:
		return order != 0
	case etcdserverpb.Compare_GREATER:
		return order > 0
	default:
		return order < 0
	}
}

// txn is one transaction: all of it or nothing, at one revision.
func (s *etcd) txn(r *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	out := &etcdserverpb.TxnResponse{Succeeded: true}
	for _, c := range r.Compare {
		out.Succeeded = out.Succeeded && s.holds(c)
	}
	ops := r.Success
	if !out.Succeeded {
		ops = r.Failure
	}
	changed := false
	for _, op := range ops { // refused as a whole, before anything is written
		p := op.GetRequestPut()
		switch {
		case p == nil:
		case (p.IgnoreValue || p.IgnoreLease) && s.get(p.Key) == nil:
			return nil, rpctypes.ErrGRPCKeyNotFound
		case p.Lease != 0 && !s.leases[p.Lease]:
			return nil, rpctypes.ErrGRPCLeaseNotFound
		}
	}
	for _, op := range ops {
		switch {
		case op.GetRequestPut() != nil:
			if err := s.put(op.GetRequestPut()); err != nil {
				return nil, err
			}
			changed = true
			out.Responses = append(out.Responses, &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponsePut{ResponsePut: &etcdserverpb.PutResponse{}}})
		case op.GetRequestDeleteRange() != nil:
			d := op.GetRequestDeleteRange()
			n := s.remove(d.Key, d.RangeEnd)
			changed = changed || n > 0
			out.Responses = append(out.Responses, &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &etcdserverpb.DeleteRangeResponse{Deleted: n}}})
		case op.GetRequestRange() != nil:
			resp, err := s.rangeOf(op.GetRequestRange())
			if err != nil {
				return nil, err
			}
			out.Responses = append(out.Responses, &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponseRange{ResponseRange: resp}})
		default:
			return nil, errors.New("sim: no such operation")
		}
	}
	if changed {
		s.revision++
	}
	out.Header = s.header()
	if changed && s.settled != nil {
		s.settled()
	}
	return out, nil
}

// endLease deletes what is attached to a lease.
func (s *etcd) endLease(id int64) {
	if !s.leases[id] {
		return
	}
	delete(s.leases, id)
	changed := false
	for _, kv := range slices.Clone(s.keys) {
		if kv.Lease == id {
			s.remove(kv.Key, nil)
			changed = true
		}
	}
	if changed {
		s.revision++
		if s.settled != nil {
			s.settled()
		}
	}
}

// etcdFaults are what can happen between a client and etcd.
type etcdFaults struct {
	low, high  time.Duration // of one way
	lostAsk    int           // of 1000 requests never arrive
	lostAnswer int           // of 1000 are applied, and the client does not hear it
	late       int           // of 1000 are given up by the client and applied later
	lateBy     time.Duration // at most
}

// etcdClient is one process's connection: pb.KVClient and pb.LeaseClient as far as the map's store uses them.
type etcdClient struct {
	etcdserverpb.KVClient
	etcdserverpb.LeaseClient
	s      *etcd
	faults *etcdFaults
	node   *node // whose it is; nil: the world's
	ideal  bool  // no time, no faults: the observer's
}

// client makes what queuemapper.Config wants.
func (c *etcdClient) client() *clientv3.Client {
	out := clientv3.NewCtxClient(context.Background())
	out.KV = clientv3.NewKVFromKVClient(c, nil)
	out.Lease = clientv3.NewLeaseFromLeaseClient(c, nil, time.Second)
	return out
}

// asks and hears say whether requests reach etcd now, and answers come back: both, or one of them alone, may not.
func (c *etcdClient) asks() bool  { return c.node == nil || !c.node.w.net.cut(c.node.id, etcdEnd) }
func (c *etcdClient) hears() bool { return c.node == nil || !c.node.w.net.cut(etcdEnd, c.node.id) }

var errNoAnswer = errors.New("sim: etcd does not answer")

// patience is a context that ends in virtual time.
type patience struct {
	context.Context
	e     *engine
	until time.Duration
}

type patienceKey struct{}

// within makes a context that ends after d.
func (e *engine) within(d time.Duration) context.Context {
	return patience{context.Background(), e, e.now + d}
}

// Err implements context.Context. Done is nil: nothing here selects.
func (p patience) Err() error {
	if p.e.now >= p.until {
		return context.DeadlineExceeded
	}
	return nil
}

// Value implements context.Context: those that are made of this one find it.
func (p patience) Value(key any) any {
	if key == (patienceKey{}) {
		return p
	}
	return nil
}

// left is how long a context lasts, at most d.
func left(ctx context.Context, d time.Duration) time.Duration {
	if p, ok := ctx.Value(patienceKey{}).(patience); ok {
		d = max(min(d, p.until-p.e.now), time.Microsecond)
	}
	return d
}

// held is a write that sits on its way: a packet that is sent again and again, a proxy that was swapped out.
type held struct {
	prefix string // of a key that it puts
	by     time.Duration
	when   func() bool                      // nil: the next one
	deaf   bool                             // its answer is lost as well
	then   func(r *etcdserverpb.TxnRequest) // what goes wrong meanwhile
}

// hold returns what holds a transaction up, nil if nothing does.
func (c *etcdClient) hold(r *etcdserverpb.TxnRequest) *held {
	if c.node == nil || c.node.hold == nil {
		return nil
	}
	for _, op := range r.Success {
		if p := op.GetRequestPut(); p != nil && (c.node.hold.when == nil || c.node.hold.when()) && strings.HasPrefix(string(p.Key), c.node.hold.prefix) {
			h := c.node.hold
			c.node.hold = nil
			return h
		}
	}
	return nil
}

// exchange carries one request to etcd and its answer back.
func exchange[T any](ctx context.Context, c *etcdClient, label string, write bool, h *held, apply func() (T, error)) (T, error) {
	if c.ideal {
		return apply()
	}
	e := c.s.e
	p := e.mine()
	f := newFuture[T](e)
	delay := e.between(c.faults.low, c.faults.high)
	timeout := 500 * time.Millisecond
	lossy := c.node != nil && c.node.lossy > 0 && write
	lostAnswer := e.chance(c.faults.lostAnswer) || lossy && e.chance(400)
	if write && (e.chance(c.faults.late) || lossy && e.chance(200)) { // the client gives it up; etcd may still see it
		delay, timeout = timeout+e.between(0, max(c.faults.lateBy, time.Second)), timeout/2
	}
	if h != nil {
		delay, lostAnswer = h.by, lostAnswer || h.deaf
	}
	timeout = left(ctx, timeout)
	if h != nil || !e.chance(c.faults.lostAsk) && !c.s.down && c.asks() {
		e.at(delay, func() {
			if c.s.down {
				return
			}
			v, err := apply()
			e.logf("etcd applies %s of %s: %v", label, p.host.name, err)
			if write && c.node != nil && c.node.trip != nil {
				trip := c.node.trip
				c.node.trip = nil
				trip()
			}
			if !lostAnswer && !c.s.down && c.hears() {
				e.at(e.between(c.faults.low, c.faults.high), func() { f.resolve(v, err) })
			}
		})
	}
	v, err := f.wait(timeout)
	if errors.Is(err, errTimeout) {
		e.logf("%s: no answer", label)
		err = errNoAnswer
	}
	return v, err
}

func (c *etcdClient) Range(ctx context.Context, r *etcdserverpb.RangeRequest, _ ...grpc.CallOption) (*etcdserverpb.RangeResponse, error) {
	return exchange(ctx, c, "a read", false, nil, func() (*etcdserverpb.RangeResponse, error) { return c.s.rangeOf(r) })
}

func (c *etcdClient) Txn(ctx context.Context, r *etcdserverpb.TxnRequest, _ ...grpc.CallOption) (*etcdserverpb.TxnResponse, error) {
	label := "a transaction"
	if c.s.e.trace != nil {
		label = describe(r)
	}
	h := c.hold(r)
	if h != nil {
		c.s.e.logf("%s is held for %v", label, h.by)
		c.s.e.at(0, func() { h.then(r) })
	}
	return exchange(ctx, c, label, true, h, func() (*etcdserverpb.TxnResponse, error) {
		resp, err := c.s.txn(r)
		if err == nil {
			if c.s.e.trace != nil {
				c.s.e.logf("%s: %v at revision %d", label, resp.Succeeded, c.s.revision)
			}
			c.s.e.note(uint64(c.s.revision))
		}
		return resp, err
	})
}

func (c *etcdClient) LeaseGrant(ctx context.Context, r *etcdserverpb.LeaseGrantRequest, _ ...grpc.CallOption) (*etcdserverpb.LeaseGrantResponse, error) {
	return exchange(ctx, c, "a lease", true, nil, func() (*etcdserverpb.LeaseGrantResponse, error) {
		c.s.lease++
		c.s.leases[c.s.lease] = true
		return &etcdserverpb.LeaseGrantResponse{Header: c.s.header(), ID: c.s.lease, TTL: r.TTL}, nil
	})
}

// Put and DeleteRange alone are transactions without a compare.
func (c *etcdClient) Put(ctx context.Context, r *etcdserverpb.PutRequest, opts ...grpc.CallOption) (*etcdserverpb.PutResponse, error) {
	resp, err := c.Txn(ctx, &etcdserverpb.TxnRequest{Success: []*etcdserverpb.RequestOp{{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: r}}}}, opts...)
	if err != nil {
		return nil, err
	}
	return &etcdserverpb.PutResponse{Header: resp.Header}, nil
}

func (c *etcdClient) DeleteRange(ctx context.Context, r *etcdserverpb.DeleteRangeRequest, opts ...grpc.CallOption) (*etcdserverpb.DeleteRangeResponse, error) {
	resp, err := c.Txn(ctx, &etcdserverpb.TxnRequest{Success: []*etcdserverpb.RequestOp{{Request: &etcdserverpb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}}}, opts...)
	if err != nil {
		return nil, err
	}
	out := resp.Responses[0].GetResponseDeleteRange()
	out.Header = resp.Header
	return out, nil
}

// describe says what a transaction writes.
func describe(r *etcdserverpb.TxnRequest) string {
	var keys []string
	for _, op := range r.Success {
		if p := op.GetRequestPut(); p != nil {
			keys = append(keys, string(p.Key))
		}
	}
	return "write of " + strings.Join(keys, " ")
}
