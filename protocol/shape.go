package protocol

import (
	"bytes"
	"fmt"
	"reflect"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A shape is the layout of one struct in one version of a request, as far as lengths and counts go.
type shape struct {
	flexible bool
	parts    []part
	min      int // fewest bytes it takes on the wire
	goSize   int // bytes of the Go struct that kmsg decodes it into
}

type partKind uint8

const (
	partFixed    partKind = iota // size bytes: one or several numbers and UUIDs
	partString                   // string, null or not
	partBytes                    // byte field, null or not
	partFixedArr                 // array of elements of size bytes
	partStrings                  // array of strings
	partStructs                  // array of sub
	partOptional                 // a byte, negative for null, and sub (KIP-893)
)

// part is one field, or a run of fields of fixed size.
type part struct {
	kind partKind
	size int
	sub  *shape
}

// shapes caches what shapeOf derives, by key and version. Entries are derived on first use: most are never used.
var shapes [len(apis)][maxKnownVersion + 1]atomic.Pointer[shape]

const maxKnownVersion = 31

// requestShape returns the layout of a request, or a *VersionError.
func requestShape(key APIKey, version int16) (*shape, error) {
	if !key.Valid() || version < 0 || version > maxKnownVersion {
		return nil, &VersionError{Key: key, Version: version}
	}
	slot := &shapes[key][version]
	if s := slot.Load(); s != nil {
		return s, nil
	}
	req := kmsg.RequestForKey(int16(key))
	if req == nil || version > req.MaxVersion() {
		return nil, &VersionError{Key: key, Version: version}
	}
	req.SetVersion(version)
	p := &prober{req: req, flexible: req.IsFlexible()}
	s, err := p.shapeOf(reflect.ValueOf(req).Elem())
	if err != nil {
		// A field that the prober cannot place, such as the few tagged ones, which only brokers and controllers send.
		return nil, &VersionError{Key: key, Version: version}
	}
	slot.Store(s)
	return s, nil
}

// prober finds out which fields of a kmsg request one version has, by changing one field at a time and looking at
// what that does to the encoding. So the layout can never disagree with the kmsg it is made for, and needs no table
// that somebody must keep.
type prober struct {
	req      kmsg.Request
	flexible bool
}

// shapeOf derives the layout of the struct v, which is part of p.req, present in its encoding, and has default values.
func (p *prober) shapeOf(v reflect.Value) (*shape, error) {
	s := &shape{flexible: p.flexible, goSize: int(v.Type().Size())}
	last := -1
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Name == "Version" && f.Type.Kind() == reflect.Int16 && i == 0 || f.Name == "UnknownTags" {
			continue
		}
		part, at, err := p.partOf(v.Field(i))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if at < 0 {
			continue // not in this version
		}
		if at <= last {
			return nil, fmt.Errorf("%s: encoded out of order", f.Name)
		}
		last = at
		s.add(part)
	}
	if p.flexible {
		s.min++ // tag count
	}
	return s, nil
}

func (s *shape) add(p part) {
	s.min += p.minSize(s.flexible)
	if n := len(s.parts); p.kind == partFixed && n > 0 && s.parts[n-1].kind == partFixed {
		s.parts[n-1].size += p.size
		return
	}
	s.parts = append(s.parts, p)
}

func (p *part) minSize(flexible bool) int {
	switch {
	case p.kind == partFixed:
		return p.size
	case p.kind == partOptional || flexible:
		return 1
	case p.kind == partString:
		return 2
	default:
		return 4
	}
}

// partOf returns the layout of one field and the first byte that changes with it, -1 if none does. The field has its
// default value again afterwards.
func (p *prober) partOf(f reflect.Value) (part, int, error) {
	old := reflect.ValueOf(f.Interface()) // a copy
	defer f.Set(old)
	base := p.req.AppendTo(nil)
	want := 0 // by how many bytes the encoding may grow; -1 for any
	var out part
	switch f.Kind() {
	case reflect.Bool:
		out = part{kind: partFixed, size: 1}
		f.SetBool(!f.Bool())
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		out = part{kind: partFixed, size: int(f.Type().Size())}
		f.SetInt(^f.Int())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		out = part{kind: partFixed, size: int(f.Type().Size())}
		f.SetUint(^f.Uint() & (1<<(8*f.Type().Size()) - 1))
	case reflect.Float64:
		out = part{kind: partFixed, size: 8}
		f.SetFloat(-1.5)
	case reflect.Array:
		out = part{kind: partFixed, size: f.Len()}
		f.Index(0).SetUint(0xa5)
	case reflect.String:
		out, want = part{kind: partString}, 1
		f.SetString(f.String() + "x")
	case reflect.Pointer, reflect.Slice:
		return p.indirectPartOf(f, base)
	default:
		return part{}, 0, fmt.Errorf("no layout for a %s", f.Type())
	}
	grown := p.req.AppendTo(nil)
	at := firstChange(base, grown)
	if at >= 0 && len(grown)-len(base) != want {
		return part{}, 0, fmt.Errorf("encoding grew by %d bytes", len(grown)-len(base))
	}
	return out, at, nil
}

// indirectPartOf is partOf for pointers and slices, which default to null or empty.
func (p *prober) indirectPartOf(f reflect.Value, base []byte) (part, int, error) {
	elem := f.Type().Elem()
	if f.Kind() == reflect.Pointer {
		f.Set(reflect.New(elem))
		if elem.Kind() == reflect.String {
			f.Elem().SetString("x") // where a version knows no null, null is encoded like the empty string
		}
		at := firstChange(base, p.req.AppendTo(nil))
		switch {
		case at < 0:
			return part{}, at, nil
		case elem.Kind() == reflect.String:
			return part{kind: partString}, at, nil
		case elem.Kind() == reflect.Struct:
			sub, err := p.shapeOf(f.Elem())
			return part{kind: partOptional, sub: sub}, at, err
		}
		return part{}, 0, fmt.Errorf("no layout for a %s", f.Type())
	}
	f.Set(reflect.MakeSlice(f.Type(), 1, 1))
	if elem.Kind() == reflect.Struct {
		if d, ok := f.Index(0).Addr().Interface().(interface{ Default() }); ok {
			d.Default()
		}
	}
	at := firstChange(base, p.req.AppendTo(nil))
	if at < 0 {
		return part{}, at, nil
	}
	switch elem.Kind() {
	case reflect.Uint8:
		return part{kind: partBytes}, at, nil
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return part{kind: partFixedArr, size: int(elem.Size())}, at, nil
	case reflect.Array:
		return part{kind: partFixedArr, size: elem.Len()}, at, nil
	case reflect.String:
		return part{kind: partStrings}, at, nil
	case reflect.Struct:
		sub, err := p.shapeOf(f.Index(0))
		return part{kind: partStructs, sub: sub}, at, err
	}
	return part{}, 0, fmt.Errorf("no layout for a %s", f.Type())
}

// firstChange returns the index of the first byte that differs, -1 if a equals b.
func firstChange(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
