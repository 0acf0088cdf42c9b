// Package etcdtest stands between tests and an etcd.
package etcdtest

import clientv3 "go.etcd.io/etcd/client/v3"

// Commit is what a test makes of a transaction: then is what it writes if its compares hold, do sends it.
type Commit func(then []clientv3.Op, do func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error)

// Txn is a transaction that commits as commit says.
func Txn(t clientv3.Txn, commit Commit) clientv3.Txn { return &txn{Txn: t, commit: commit} }

type txn struct {
	clientv3.Txn
	then   []clientv3.Op
	commit Commit
}

func (t *txn) If(cs ...clientv3.Cmp) clientv3.Txn { t.Txn = t.Txn.If(cs...); return t }

func (t *txn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.Txn, t.then = t.Txn.Then(ops...), append(t.then, ops...)
	return t
}

func (t *txn) Else(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(ops...); return t }

func (t *txn) Commit() (*clientv3.TxnResponse, error) { return t.commit(t.then, t.Txn.Commit) }
