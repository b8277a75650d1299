/* What the C programs of the tests have in common. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int checks;

static inline void failed(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: %s (errno %d: %s)\n", file, line, what, errno, strerror(errno));
	exit(1);
}

/* The condition holds. */
#define CHECK(condition) \
	do { \
		checks++; \
		if (!(condition)) \
			failed(__FILE__, __LINE__, #condition); \
	} while (0)

/* The call succeeds: it gives 0 or a positive number. */
#define OK(call) \
	do { \
		checks++; \
		if ((call) < 0) \
			failed(__FILE__, __LINE__, #call); \
	} while (0)

/* The call fails with this errno. */
#define FAILS(error, call) \
	do { \
		checks++; \
		errno = 0; \
		if ((long)(call) != -1 || errno != (error)) \
			failed(__FILE__, __LINE__, "not " #error ": " #call); \
	} while (0)

/* The call gives NULL, and this errno. */
#define NONE(error, call) \
	do { \
		checks++; \
		errno = -1; \
		if ((call) != NULL || errno != (error)) \
			failed(__FILE__, __LINE__, "not " #error ": " #call); \
	} while (0)

static inline int report(void)
{
	printf("%d checks\n", checks);
	return 0;
}

#endif
