#ifndef SWARM_UNPACK_H
#define SWARM_UNPACK_H

/*
 * `swarm-shim unpack DIR FILE_BYTES_MAX`: carries out the file operations that arrive on stdin inside DIR, which may be
 * written by nobody else meanwhile. The format of an operation stands in unpack.c and agent/image/unpack-op.ts.
 * Exits 0 after `end`; else 1 with `KIND ERRNO PATH` of the first operation that failed on stdout. argv is the whole command line.
 */
int unpack_main(int argc, char **argv);

#endif
