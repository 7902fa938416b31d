/**
 * Images of real software, made of Debian's packages: nginx, redis, PostgreSQL, and a small guest book that talks to the
 * latter two. Their users, variables and files are those of the images that people know, so that the stacks in
 * deploy/examples run with either.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { buildImage, busyboxFiles, type LayerPlan } from "./images.ts";
import { directory, file, type TarItem } from "./tar.ts";

const NGINX_LIBRARIES = ["libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"];
/** What PostgreSQL, its client and redis need: one layer that three images share. */
const DATA_LIBRARIES = (
  "libatomic1 libaudit1 libc6 libcap-ng0 libcap2 libcom-err2 libcrypt1 libffi8 libgcc-s1 libgcrypt20 libgmp10 libgnutls30 " +
  "libgpg-error0 libgssapi-krb5-2 libhogweed6 libicu72 libidn2-0 libjemalloc2 libk5crypto3 libkeyutils1 libkrb5-3 " +
  "libkrb5support0 libldap-2.5-0 liblz4-1 liblzf1 liblzma5 libnettle8 libp11-kit0 libpam0g libpq5 libreadline8 " +
  "libsasl2-2 libssl3 libstdc++6 libsystemd0 libtasn1-6 libtinfo6 libunistring2 libxml2 libzstd1 zlib1g tzdata"
).split(" ");

const USERS = {
  redis: 999,
  postgres: 999,
} as const;

const NGINX_CONFIGURATION = `daemon off; master_process on; worker_processes 1; pid /run/nginx.pid; error_log /dev/stderr;
events {}
http { access_log /dev/stdout; include /etc/nginx/conf.d/*.conf; server { listen 80; listen [::]:80; root /srv; } }
`;

const POSTGRES_ENTRYPOINT = `#!/bin/sh
# As the well-known image: it gives the data directory to postgres and goes on as postgres; a new one is filled once.
# PGDATA, POSTGRES_DB, POSTGRES_PASSWORD_FILE.
set -e
if [ "$(id -u)" = 0 ]; then
  chown postgres:postgres "$PGDATA"
  exec su -s /bin/sh postgres -c "exec /bin/docker-entrypoint.sh"
fi
export PATH=/usr/lib/postgresql/15/bin:/bin
: "\${PGDATA:=/var/lib/postgresql/data}" "\${POSTGRES_DB:=postgres}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb -D "$PGDATA" -U postgres --pwfile="\${POSTGRES_PASSWORD_FILE:?}" --locale=C --encoding=UTF8 \\
    --auth-local=trust --auth-host=scram-sha-256 >/dev/null
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  [ "$POSTGRES_DB" = postgres ] || echo "create database \\"$POSTGRES_DB\\";" | postgres --single -D "$PGDATA" postgres >/dev/null
  echo "filled a new data directory"
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp -c jit=off -c fsync=off
`;

const GUESTBOOK_CGI = `#!/bin/sh
# One visit: counted by redis, kept by PostgreSQL.
printf 'Content-Type: text/plain\\r\\n\\r\\n'
visits=$(redis-cli -h "$REDIS_HOST" -p "\${REDIS_PORT:-6379}" --no-auth-warning -a "$(cat /run/secrets/redis_password)" incr visits) || visits=unknown
rows=$(/app/sql -c "insert into visits default values" -c "select count(*) from visits" | tail -n 1) || rows=unknown
printf '%s visits=%s rows=%s\\n' "\${GREETING:-Hello}" "$visits" "$rows"
`;

const GUESTBOOK_SQL = `#!/bin/sh
# psql with the database's address and password.
PGPASSWORD=$(cat /run/secrets/db_password) PGCONNECT_TIMEOUT=3 exec /usr/lib/postgresql/15/bin/psql \\
  -qAt -h "$DB_HOST" -p "\${DB_PORT:-5432}" -U postgres -d "\${DB_NAME:-postgres}" -v ON_ERROR_STOP=1 "$@"
`;

const GUESTBOOK_MIGRATE = `#!/bin/sh
set -e
/app/sql -c "create table if not exists visits (id bigserial primary key, at timestamptz not null default now())"
echo "migrated"
`;

const GUESTBOOK_SERVE = `#!/bin/sh
trap 'exit 0' TERM
httpd -f -p 80 -h /www &
wait
`;

/** A layer of the files of Debian packages, unpacked by dpkg in `folder`, without their documentation. */
function packageLayer(folder: string, packages: readonly string[]): LayerPlan {
  const root = join(folder, "root");
  mkdirSync(root, { recursive: true });
  execFileSync("apt-get", ["download", "-q", "-o", "APT::Sandbox::User=root", ...packages], {
    cwd: folder,
    stdio: "pipe",
  });
  for (const name of readdirSync(folder).filter((each) => each.endsWith(".deb"))) {
    execFileSync("dpkg", ["-x", join(folder, name), root]);
  }
  const left = ["doc", "man", "locale", "lintian", "bug"].map((name) => `--exclude=./usr/share/${name}`);
  const tar = execFileSync("tar", ["-C", root, "--sort=name", ...left, "-c", "."], { maxBuffer: 512 * 1024 * 1024 });
  return { tar, compression: "zstd" };
}

/** Accounts as Debian's images have them, and the folders that programs expect. */
function baseFiles(accounts: Readonly<Record<string, number>>): TarItem[] {
  const users = [
    ["root", 0],
    ["www-data", 33],
    ["nobody", 65534],
    ["nogroup", 65534],
    ...Object.entries(accounts),
  ] as const;
  return [
    directory("etc"),
    file("etc/passwd", users.map(([name, id]) => `${name}:x:${id}:${id}:${name}:/:/bin/sh\n`).join("")),
    file("etc/group", users.map(([name, id]) => `${name}:x:${id}:\n`).join("")),
    directory("run"),
    directory("tmp", 0o1777),
  ];
}

/** Makes images; each method answers the path of an archive. The folders hold what was downloaded. */
export class SoftwareImages {
  readonly #folder: (name: string) => string;
  readonly #layers = new Map<string, LayerPlan>();

  /** `folder` makes a directory of that name for the images and their packages. */
  constructor(folder: (name: string) => string) {
    this.#folder = folder;
  }

  /** nginx that serves a page which says `version`, and whatever lies in /etc/nginx/conf.d. */
  nginx(version: string): string {
    const site = [
      ...busyboxFiles(),
      ...baseFiles({}),
      file("etc/nginx/nginx.conf", NGINX_CONFIGURATION),
      directory("etc/nginx/conf.d"),
      file("srv/index.html", `nginx ${version}\n`),
    ];
    return buildImage({
      name: `debian/nginx:${version}`,
      directory: this.#folder("images"),
      layers: [
        this.#packages("nginx-libraries", NGINX_LIBRARIES),
        this.#packages("nginx", ["nginx", "nginx-common"]),
        { files: site },
      ],
      config: { Entrypoint: ["/usr/sbin/nginx"], ExposedPorts: { "80/tcp": {} }, StopSignal: "SIGQUIT" },
    });
  }

  redis(): string {
    return buildImage({
      name: "debian/redis:7",
      directory: this.#folder("images"),
      layers: [
        this.#packages("data-libraries", DATA_LIBRARIES),
        { files: busyboxFiles() },
        this.#packages("redis", ["redis-server", "redis-tools"]),
        { files: [...baseFiles({ redis: USERS.redis }), { ...directory("data"), uid: USERS.redis, gid: USERS.redis }] },
      ],
      config: {
        WorkingDir: "/data",
        Env: ["PATH=/usr/bin:/bin"],
        Cmd: ["redis-server", "--protected-mode", "no"],
        Volumes: { "/data": {} },
      },
    });
  }

  postgres(): string {
    const owned = { uid: USERS.postgres, gid: USERS.postgres };
    return buildImage({
      name: "debian/postgres:15",
      directory: this.#folder("images"),
      layers: [
        this.#packages("data-libraries", DATA_LIBRARIES),
        { files: busyboxFiles() },
        this.#packages("postgres", ["postgresql-15", "postgresql-client-15"]),
        {
          files: [
            ...baseFiles({ postgres: USERS.postgres }),
            directory("var/lib/postgresql"),
            { ...directory("var/lib/postgresql/data", 0o700), ...owned },
            file("bin/docker-entrypoint.sh", POSTGRES_ENTRYPOINT, 0o755),
          ],
        },
      ],
      config: {
        Env: ["PATH=/usr/lib/postgresql/15/bin:/bin", "PGDATA=/var/lib/postgresql/data"],
        Entrypoint: ["docker-entrypoint.sh"],
        StopSignal: "SIGINT",
        Volumes: { "/var/lib/postgresql/data": {} },
      },
    });
  }

  /** The guest book: a web server, and `/app/migrate` for its table. */
  guestbook(version: string): string {
    return buildImage({
      name: `demo/guestbook:${version}`,
      directory: this.#folder("images"),
      layers: [
        this.#packages("data-libraries", DATA_LIBRARIES),
        { files: busyboxFiles() },
        this.#packages("clients", ["redis-tools", "postgresql-client-15"]),
        {
          files: [
            ...baseFiles({}),
            directory("app"),
            file("app/sql", GUESTBOOK_SQL, 0o755),
            file("app/migrate", GUESTBOOK_MIGRATE, 0o755),
            file("app/serve", GUESTBOOK_SERVE, 0o755),
            directory("www"),
            directory("www/cgi-bin"),
            file("www/version", `${version}\n`),
            file("www/cgi-bin/index.cgi", GUESTBOOK_CGI, 0o755),
          ],
        },
      ],
      config: { Env: ["PATH=/usr/bin:/bin"], Cmd: ["/app/serve"], ExposedPorts: { "80/tcp": {} } },
    });
  }

  #packages(name: string, packages: readonly string[]): LayerPlan {
    const known = this.#layers.get(name);
    if (known) return known;
    const layer = packageLayer(this.#folder(name), packages);
    this.#layers.set(name, layer);
    return layer;
  }
}
