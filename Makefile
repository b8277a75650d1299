# Builds and installs the library for C, and the command `ioth`. Rust programs need none of this: they depend on the crate
# `ioth`.
#
#   make                           builds all, which `make install` then finds
#   make install [PREFIX=/usr/local] [DESTDIR=...] [BINDIR=...] [LIBDIR=...] [INCLUDEDIR=...] [MANDIR=...]
#   make uninstall                 with the same variables
#
# PROFILE (release, or another profile of cargo), CARGO, CARGO_TARGET_DIR and CARGO_BUILD_TARGET say how it is built.

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
# The command looks for its library in ../lib/ioth (see ioth-run(1)) unless IOTH_PRELOAD names it.
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig

CARGO ?= cargo
CARGO_TARGET_DIR ?= target
INSTALL ?= install
PROFILE ?= release

# Cargo puts what the profile dev makes into a directory of another name.
built = $(CARGO_TARGET_DIR)$(if $(CARGO_BUILD_TARGET),/$(CARGO_BUILD_TARGET))/$(patsubst dev,debug,$(PROFILE))
crate = ioth-capi
version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

headers = ioth.h iothconf.h iothaddr.h
# One library has all; the C library's came in three.
names = ioth iothconf iothaddr
pages = ioth ioth_sockets ioth_netlink iothconf iothaddr
links = $(foreach page,$(pages),$(addprefix $(page):,$(filter-out $(page),$(shell \
	sed -n '/^\.SH NAME/{n;s/ \\-.*//;s/,//g;p;q}' $(crate)/man/$(page).3))))

# What Rust's standard library needs of the system, where a program is linked without libioth.so.
static_libs = -lgcc_s -lutil -lrt -lpthread -lm -ldl

.PHONY: all install built uninstall

all:
	$(CARGO) build --locked --package ioth-capi --lib --profile "$(PROFILE)" --target-dir "$(CARGO_TARGET_DIR)"
	$(CARGO) build --locked --package ioth-cli --package ioth-preload --profile "$(PROFILE)" --target-dir "$(CARGO_TARGET_DIR)"

# Root, who installs, has seldom a cargo; and what he built would be his.
built:
	@[ -f "$(built)/libioth_c.so" ] && [ -f "$(built)/ioth" ] || { echo "nothing to install in $(built): run make first" >&2; exit 1; }

install: built
	$(INSTALL) -d "$(DESTDIR)$(LIBDIR)" "$(DESTDIR)$(PKGCONFIGDIR)" "$(DESTDIR)$(INCLUDEDIR)" "$(DESTDIR)$(MANDIR)/man3"
	$(INSTALL) -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(LIBDIR)/ioth" "$(DESTDIR)$(MANDIR)/man1" "$(DESTDIR)$(MANDIR)/man7"
	$(INSTALL) -m 755 "$(built)/ioth" "$(DESTDIR)$(BINDIR)/ioth"
	$(INSTALL) -m 644 "$(built)/libioth_preload.so" "$(DESTDIR)$(LIBDIR)/ioth/libioth_preload.so"
	$(INSTALL) -m 644 ioth-cli/man/ioth-run.1 "$(DESTDIR)$(MANDIR)/man1/ioth-run.1"
	$(INSTALL) -m 644 ioth-cli/man/ioth-switch.1 "$(DESTDIR)$(MANDIR)/man1/ioth-switch.1"
	$(INSTALL) -m 644 ioth-cli/man/ioth-vnl.7 "$(DESTDIR)$(MANDIR)/man7/ioth-vnl.7"
	for name in ioth-plug ioth-cap; do echo ".so man1/ioth-switch.1" >"$(DESTDIR)$(MANDIR)/man1/$$name.1" || exit; done
	chmod 644 "$(DESTDIR)$(MANDIR)/man1/ioth-plug.1" "$(DESTDIR)$(MANDIR)/man1/ioth-cap.1"
	for name in ioth ioth-node; do echo ".so man1/ioth-run.1" >"$(DESTDIR)$(MANDIR)/man1/$$name.1" || exit; done
	chmod 644 "$(DESTDIR)$(MANDIR)/man1/ioth.1" "$(DESTDIR)$(MANDIR)/man1/ioth-node.1"
	$(INSTALL) -m 755 "$(built)/libioth_c.so" "$(DESTDIR)$(LIBDIR)/libioth.so.0"
	$(INSTALL) -m 644 "$(built)/libioth_c.a" "$(DESTDIR)$(LIBDIR)/libioth.a"
	ln -sf libioth.so.0 "$(DESTDIR)$(LIBDIR)/libioth.so"
	for name in iothconf iothaddr; do \
		ln -sf libioth.so.0 "$(DESTDIR)$(LIBDIR)/lib$$name.so.0" && \
		ln -sf libioth.so.0 "$(DESTDIR)$(LIBDIR)/lib$$name.so" && \
		ln -sf libioth.a "$(DESTDIR)$(LIBDIR)/lib$$name.a" || exit; \
	done
	for header in $(headers); do \
		$(INSTALL) -m 644 "$(crate)/include/$$header" "$(DESTDIR)$(INCLUDEDIR)/$$header" || exit; \
	done
	for name in $(names); do \
		sed -e 's|@PREFIX@|$(PREFIX)|' \
			-e 's|@LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|' \
			-e 's|@INCLUDEDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|' \
			-e 's|@VERSION@|$(version)|; s|@STATIC_LIBS@|$(static_libs)|' \
			"$(crate)/pkgconfig/lib$$name.pc.in" >"$(DESTDIR)$(PKGCONFIGDIR)/lib$$name.pc" && \
		chmod 644 "$(DESTDIR)$(PKGCONFIGDIR)/lib$$name.pc" || exit; \
	done
	for page in $(pages); do \
		$(INSTALL) -m 644 "$(crate)/man/$$page.3" "$(DESTDIR)$(MANDIR)/man3/$$page.3" || exit; \
	done
	for link in $(links); do \
		echo ".so man3/$${link%%:*}.3" >"$(DESTDIR)$(MANDIR)/man3/$${link#*:}.3" && \
		chmod 644 "$(DESTDIR)$(MANDIR)/man3/$${link#*:}.3" || exit; \
	done

uninstall:
	rm -f "$(DESTDIR)$(BINDIR)/ioth" "$(DESTDIR)$(LIBDIR)/ioth/libioth_preload.so"
	[ ! -d "$(DESTDIR)$(LIBDIR)/ioth" ] || rmdir "$(DESTDIR)$(LIBDIR)/ioth"
	rm -f "$(DESTDIR)$(MANDIR)/man7/ioth-vnl.7"
	for name in ioth ioth-run ioth-node ioth-switch ioth-plug ioth-cap; do rm -f "$(DESTDIR)$(MANDIR)/man1/$$name.1" || exit; done
	for name in $(names); do \
		rm -f "$(DESTDIR)$(LIBDIR)/lib$$name.so" "$(DESTDIR)$(LIBDIR)/lib$$name.so.0" \
			"$(DESTDIR)$(LIBDIR)/lib$$name.a" "$(DESTDIR)$(PKGCONFIGDIR)/lib$$name.pc" || exit; \
	done
	for header in $(headers); do rm -f "$(DESTDIR)$(INCLUDEDIR)/$$header" || exit; done
	for page in $(pages); do rm -f "$(DESTDIR)$(MANDIR)/man3/$$page.3" || exit; done
	for link in $(links); do rm -f "$(DESTDIR)$(MANDIR)/man3/$${link#*:}.3" || exit; done
