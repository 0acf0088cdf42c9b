package record

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/snappy"
)

// Snappy as the Java client writes it: a header of 16 bytes, then blocks of at most 32 KiB, each preceded by the size
// of its compressed form (INT32). Streams that were written one after the other repeat the header in between.
//
//	82 'S' 'N' 'A' 'P' 'P' 'Y' 00  version = 1  compatible version = 1
var xerialHeader = []byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01")

const (
	xerialMagicLen = 8
	xerialBlock    = 32 << 10
	// snappyMaxRatio is more than any snappy block can expand: a copy of 64 bytes takes 2 bytes at least.
	snappyMaxRatio = 64
)

func decompressSnappy(dst, src []byte, limit int) ([]byte, error) {
	start := len(dst)
	if !bytes.HasPrefix(src, xerialHeader[:xerialMagicLen]) {
		return appendSnappyBlock(dst, src, limit)
	}
	for len(src) > 0 {
		if bytes.HasPrefix(src, xerialHeader[:xerialMagicLen]) {
			if len(src) < len(xerialHeader) {
				return dst[:start], errBadStream
			}
			src = src[len(xerialHeader):]
			continue
		}
		if len(src) < 4 {
			return dst[:start], errBadStream
		}
		n := binary.BigEndian.Uint32(src)
		if src = src[4:]; n > uint32(len(src)) {
			return dst[:start], errBadStream
		}
		var err error
		if dst, err = appendSnappyBlock(dst, src[:n], limit-(len(dst)-start)); err != nil {
			return dst[:start], err
		}
		src = src[n:]
	}
	return dst, nil
}

// appendSnappyBlock appends one decompressed block. What a block says about its size is not believed beyond what its
// length could hold.
func appendSnappyBlock(dst, block []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(block)
	switch {
	case err != nil || n > snappyMaxRatio*len(block):
		return dst, errBadStream
	case n > limit:
		return dst, errDecompressed
	}
	dst = slices.Grow(dst, n)
	out, err := snappy.DecodeStrict(dst[len(dst):len(dst)+n], block) // S2 extensions no other client could read
	if err != nil || len(out) != n {
		return dst, errBadStream
	}
	return dst[:len(dst)+n], nil
}

func compressSnappy(dst, src []byte) []byte {
	dst = append(dst, xerialHeader...)
	for len(src) > 0 {
		block := src[:min(len(src), xerialBlock)]
		src = src[len(block):]
		at := len(dst)
		dst = slices.Grow(dst, 4+s2.MaxEncodedLen(len(block)))
		out := s2.EncodeSnappy(dst[at+4:cap(dst)], block)
		dst = dst[:at+4+len(out)]
		binary.BigEndian.PutUint32(dst[at:], uint32(len(out)))
	}
	return dst
}

// The header of an lz4 frame.
//
//	0       4     5    6               6 or 14
//	+-------+-----+----+--------------+-----------------+
//	| magic | FLG | BD | content size | header checksum |
//	+-------+-----+----+--------------+-----------------+
//
// The header checksum is the second byte of the xxh32 of FLG to content size. Kafka's clients up to 0.9 computed it over
// the magic as well, and what they wrote into magic 0 is what readers of magic 0 expect to this day (KIP-57).
const (
	lz4MagicLen         = 4
	lz4BlockIndependent = 1 << 5
	lz4HasContentSize   = 1 << 3
)

// lz4ChecksumAt returns where the header checksum is, or -1.
func lz4ChecksumAt(frame []byte) int {
	if len(frame) < 7 {
		return -1
	}
	at := 6
	if frame[4]&lz4HasContentSize != 0 {
		at += 8
	}
	if at >= len(frame) {
		return -1
	}
	return at
}

// fixLz4 returns the frame with the header checksum that the format wants.
func fixLz4(frame []byte) []byte {
	at := lz4ChecksumAt(frame)
	if at < 0 {
		return frame
	}
	want := byte(xxh32(frame[lz4MagicLen:at]) >> 8)
	if frame[at] == want {
		return frame
	}
	frame = bytes.Clone(frame)
	frame[at] = want
	return frame
}

// breakLz4 gives a frame, in place, the header checksum that readers of magic 0 want.
func breakLz4(frame []byte) {
	if at := lz4ChecksumAt(frame); at >= 0 {
		frame[at] = byte(xxh32(frame[:at]) >> 8)
	}
}

// xxh32 is the 32-bit xxHash with seed 0 of inputs of a few bytes (specification: github.com/Cyan4973/xxHash).
func xxh32(b []byte) uint32 {
	const (
		p1 = 2654435761
		p2 = 2246822519
		p3 = 3266489917
		p4 = 668265263
		p5 = 374761393
	)
	h := uint32(p5)
	n := len(b)
	if n >= 16 {
		one := uint32(p1)
		v := [4]uint32{one + p2, p2, 0, -one}
		for ; len(b) >= 16; b = b[16:] {
			for i := range v {
				v[i] = bits.RotateLeft32(v[i]+binary.LittleEndian.Uint32(b[4*i:])*p2, 13) * p1
			}
		}
		h = bits.RotateLeft32(v[0], 1) + bits.RotateLeft32(v[1], 7) + bits.RotateLeft32(v[2], 12) + bits.RotateLeft32(v[3], 18)
	}
	h += uint32(n)
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*p3, 17) * p4
	}
	for _, c := range b {
		h = bits.RotateLeft32(h+uint32(c)*p5, 11) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return h ^ h>>16
}
