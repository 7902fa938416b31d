#ifndef SWARM_UNPACK_H
#define SWARM_UNPACK_H

/*
 * `swarm-shim unpack DIR FILE_BYTES_MAX`: carries out the file operations that arrive on stdin inside DIR, which may be
 * written by nobody else meanwhile. The format of an operation stands in unpack.c and agent/image/unpack-op.ts.
 * Exits 0 after `end`; else 1 with `KIND ERRNO PATH` of the first operation that failed on stdout. argv is the whole command line.
 */
int unpack_main(int argc, char **argv);

/*
 * The same operations on standard input, inside the running container whose root is this process's: a mount there is gone
 * into, a symbolic link below the directory that was entered is not, and no directory gives way to something else, nor
 * something else to a directory. Answers 0 after `end`, -1 once a failure has been told by `copy_failed`.
 */
int unpack_into_container(void);

/* ---- copy.c ---- */
void copy_failed(unsigned operation, const char *name, int error);
int copy_look(const char *wanted);
int copy_enter(const char *wanted);

#endif
