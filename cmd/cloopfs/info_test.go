package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unpacked returns a fixture.
func unpacked(t *testing.T, name string) []byte {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join(fixtures, name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// bothOrders is a number as ISO 9660 writes it.
func bothOrders(n uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, n), n)
}

// Of an ISO file that was cut off, what is there is told.
func TestInfoOfCutOffISO(t *testing.T) {
	const truly, claimed = 5000, 4 << 20 // of KNOPPIX/KNOPPIX
	iso := unpacked(t, "iso9660/xorriso-rr.iso")
	if n := bytes.Count(iso, bothOrders(truly)); n != 1 {
		t.Fatalf("%d records of %d bytes, want 1", n, truly)
	}
	iso = bytes.Replace(iso, bothOrders(truly), bothOrders(claimed), 1)
	got := program(t, nil, "info", writeFile(t, "cut.iso", iso))
	if got.code != 0 || got.stderr != "" || !strings.Contains(got.stdout, "KNOPPIX/KNOPPIX: 4 MiB, unreadable\n") {
		t.Errorf("got %+v, want KNOPPIX/KNOPPIX unreadable", got)
	}
}
