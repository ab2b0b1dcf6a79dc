import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type { Sql, StorageLog } from './postgres.ts'

export interface MigrateOptions {
  readonly log: StorageLog
  /** Folder of the `NNNN_name.sql` files, with a slash at its end; default: the one beside this file. */
  readonly directory?: URL
}

/**
 * Brings the schema up to date and returns the names of the files that this call applied. Files run in the order of
 * their numbers, each in a transaction of its own together with its row in `schema_migrations`, under an advisory lock:
 * any number of replicas may start at once. Forward-only: a file that changed after it was applied is an error, files
 * that only the database knows (a newer release ran before) are left alone.
 */
export async function migrate(sql: Sql, options: MigrateOptions): Promise<string[]> {
  const files = await readMigrations(options.directory ?? migrations)
  const applied: string[] = []
  for (const file of files) {
    const isNew = await sql.begin(
      async (tx) => {
        await tx`select pg_advisory_xact_lock(${lockKey})`
        await tx`set local client_min_messages = warning`
        await tx`
        create table if not exists schema_migrations (
          name text primary key,
          checksum text not null,
          applied_at timestamptz not null default now()
        )`
        const [row] = await tx<{ checksum: string }[]>`select checksum from schema_migrations where name = ${file.name}`
        if (row !== undefined) {
          if (row.checksum !== file.checksum) throw new Error(changedText(file.name))
          return false
        }
        await tx.unsafe(file.text)
        await tx`insert into schema_migrations (name, checksum) values (${file.name}, ${file.checksum})`
        return true
      },
      '',
      statementTimeoutMs,
    )
    if (!isNew) continue
    applied.push(file.name)
    options.log.info({ migration: file.name }, 'applied a migration')
  }
  return applied
}

/** Names of the files that a database has not applied; all of them for an empty one. */
export async function pendingMigrations(sql: Sql): Promise<string[]> {
  const files = await readMigrations(migrations)
  const [table] = await sql<{ name: string | null }[]>`select to_regclass('schema_migrations')::text as name`
  if (table?.name == null) return files.map(({ name }) => name)
  const applied = await sql<{ name: string }[]>`select name from schema_migrations`
  const known = new Set(applied.map(({ name }) => name))
  return files.flatMap(({ name }) => (known.has(name) ? [] : [name]))
}

const migrations = new URL('./migrations/', import.meta.url)

interface Migration {
  readonly name: string
  readonly text: string
  readonly checksum: string
}

/** A table rewrite may take long, and so may the wait for another replica that does one. */
const statementTimeoutMs = 900_000

/** Any constant will do, as long as every release uses the same. */
const lockKey = 7_161_001

async function readMigrations(directory: URL): Promise<Migration[]> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.sql')).sort()
  const numbers = new Set<string>()
  const migrations: Migration[] = []
  for (const name of names) {
    const number = /^(\d{4})_[a-z0-9_]+\.sql$/.exec(name)?.[1]
    if (number === undefined) throw new Error(`Migration ${name} is not named NNNN_name.sql.`)
    if (numbers.has(number)) throw new Error(`Two migrations have the number ${number}.`)
    numbers.add(number)
    // A checkout with CRLF line endings is still the same migration.
    const text = (await readFile(new URL(name, directory), 'utf8')).replaceAll('\r\n', '\n')
    migrations.push({ name, text, checksum: createHash('sha256').update(text).digest('hex') })
  }
  return migrations
}

function changedText(name: string): string {
  return (
    `Migration ${name} was changed after this database applied it. ` +
    'Restore the file and put the change into a new migration with the next number.'
  )
}
