/*
 * The functions with "..." in their prototype, which stable Rust can call but not define. Each gathers its arguments and
 * calls a function of a fixed number of them. The exported names are in variadic.rs, which jumps to here: rustc
 * exports from a shared library what is written in Rust, and nothing else.
 */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

struct ioth;

/* Definitions and references: what is hidden in one object file is not exported from the whole. */
#pragma GCC visibility push(hidden)

struct ioth *ioth_variadic_newstackl(const char *stack, const char *vnl, ...);
int ioth_variadic_ioctl(int fd, unsigned long request, ...);
int ioth_variadic_fcntl(int fd, int command, ...);

/* In Rust. */
struct ioth *ioth_fixed_newstackv(const char *stack, const char *const *vnlv);
int ioth_fixed_ioctl(int fd, unsigned long request, void *argument);
int ioth_fixed_fcntl(int fd, int command, long argument);

#pragma GCC visibility pop

struct ioth *ioth_variadic_newstackl(const char *stack, const char *vnl, ...)
{
	va_list list, again;
	size_t count = 0, at = 0;
	const char **vnlv;
	struct ioth *made;
	int error;

	va_start(list, vnl);
	va_copy(again, list);
	for (const char *next = vnl; next != NULL; next = va_arg(again, const char *))
		count++;
	va_end(again);
	vnlv = calloc(count + 1, sizeof(*vnlv));
	if (vnlv != NULL)
		for (const char *next = vnl; next != NULL; next = va_arg(list, const char *))
			vnlv[at++] = next;
	va_end(list);
	if (vnlv == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	made = ioth_fixed_newstackv(stack, vnlv);
	error = errno;
	free(vnlv);
	errno = error;
	return made;
}

/* As the C library does it: an argument that is not there is read and not used. */
int ioth_variadic_ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *argument;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	return ioth_fixed_ioctl(fd, request, argument);
}

int ioth_variadic_fcntl(int fd, int command, ...)
{
	va_list list;
	long argument;

	va_start(list, command);
	argument = va_arg(list, long);
	va_end(list);
	return ioth_fixed_fcntl(fd, command, argument);
}
