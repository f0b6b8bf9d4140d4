package models

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Bounds on .xz files.
const (
	maxDictionaryBytes = 64 << 20 // bytes; what xz -9 makes
	maxBlocks          = 1 << 20
)

var errXZ = errors.New("bad .xz file")

// unpackedSize returns the size of an .xz file's content out of the indexes at its end, before anything is unpacked. A
// file that is cut off has no index, and a block that needs a larger dictionary than maxDictionaryBytes is refused. The
// sizes are only claims: unpacking must stop at them.
func unpackedSize(r io.ReaderAt, size int64) (int64, error) {
	var total int64
	end := size
	for end > 0 {
		if padded, err := isPadding(r, end); err != nil {
			return 0, fmt.Errorf("%w: %w", errXZ, err)
		} else if padded {
			end -= 4
			continue
		}
		s := xzStream{r: r, end: end}
		content, start, err := s.contentSize()
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errXZ, err)
		}
		if total += content; total < 0 {
			return 0, fmt.Errorf("%w: impossible size", errXZ)
		}
		end = start
	}
	if total == 0 {
		return 0, fmt.Errorf("%w: empty", errXZ)
	}
	return total, nil
}

func isPadding(r io.ReaderAt, end int64) (bool, error) {
	if end < 4 {
		return false, errors.New("too short")
	}
	var b [4]byte
	if _, err := r.ReadAt(b[:], end-4); err != nil {
		return false, err
	}
	return b == [4]byte{}, nil
}

// xzStream is one stream that ends before end.
type xzStream struct {
	r   io.ReaderAt
	end int64
}

const (
	xzHeaderBytes = 12
	xzFooterBytes = 12
)

// contentSize returns the size of the stream's content and where the stream begins.
func (s xzStream) contentSize() (content, start int64, err error) {
	indexStart, err := s.footer()
	if err != nil {
		return 0, 0, err
	}
	index := bufio.NewReader(io.NewSectionReader(s.r, indexStart, s.end-xzFooterBytes-indexStart))
	if b, err := index.ReadByte(); err != nil || b != 0 {
		return 0, 0, errors.New("no index at its end")
	}
	count, err := binary.ReadUvarint(index)
	if err != nil || count > maxBlocks {
		return 0, 0, errors.New("the index is broken")
	}
	var packed int64
	offsets := make([]int64, 0, min(count, 4096))
	for range count {
		unpadded, err1 := binary.ReadUvarint(index)
		plain, err2 := binary.ReadUvarint(index)
		if err1 != nil || err2 != nil || unpadded > uint64(indexStart) || plain > 1<<62 {
			return 0, 0, errors.New("the index is broken")
		}
		offsets = append(offsets, packed)
		packed += (int64(unpadded) + 3) &^ 3
		if content += int64(plain); packed > indexStart || content < 0 {
			return 0, 0, errors.New("the index is broken")
		}
	}
	start = indexStart - packed - xzHeaderBytes
	if start < 0 {
		return 0, 0, errors.New("it is cut off at the front")
	}
	for _, o := range offsets {
		if err := checkDictionary(s.r, start+xzHeaderBytes+o); err != nil {
			return 0, 0, err
		}
	}
	return content, start, nil
}

// footer checks the footer and returns the start of the index.
func (s xzStream) footer() (int64, error) {
	var b [xzFooterBytes]byte
	if s.end < xzHeaderBytes+xzFooterBytes {
		return 0, errors.New("too short")
	}
	if _, err := s.r.ReadAt(b[:], s.end-xzFooterBytes); err != nil {
		return 0, err
	}
	if string(b[10:]) != "YZ" || binary.LittleEndian.Uint32(b[:]) != crc32.ChecksumIEEE(b[4:10]) {
		return 0, errors.New("its end is missing, it breaks off")
	}
	indexBytes := (int64(binary.LittleEndian.Uint32(b[4:])) + 1) * 4
	start := s.end - xzFooterBytes - indexBytes
	if start < xzHeaderBytes {
		return 0, errors.New("the index is broken")
	}
	return start, nil
}

// checkDictionary reads the block header at offset, which must hold one LZMA2 filter.
func checkDictionary(r io.ReaderAt, offset int64) error {
	var b [1024]byte
	n, err := r.ReadAt(b[:], offset)
	if n < 8 {
		return fmt.Errorf("block header: %w", err)
	}
	const (
		sizes     = 0xC0 // flags: the two sizes are present
		lzma2     = 0x21
		biggest40 = 40
	)
	flags, at := b[1], 2
	if flags&0x03 != 0 {
		return errors.New("filters other than LZMA2 are not supported")
	}
	for range int(flags&sizes>>6&1) + int(flags&sizes>>7) {
		_, k := binary.Uvarint(b[at:n])
		if k <= 0 {
			return errors.New("broken block header")
		}
		at += k
	}
	if at+3 > n || b[at] != lzma2 || b[at+1] != 1 || b[at+2] > biggest40 {
		return errors.New("filters other than LZMA2 are not supported")
	}
	code := uint(b[at+2])
	if dictionary := uint64(2|code&1) << (code/2 + 11); dictionary > maxDictionaryBytes {
		return fmt.Errorf("needs a dictionary of %d MiB, at most %d are allowed: pack it with xz -9 or less", dictionary>>20, maxDictionaryBytes>>20)
	}
	return nil
}
