import { TollgateError } from '../errors.ts'
import { asStorageError } from './postgres.ts'

/** What a broken constraint means to the caller, by the constraint's name. */
export type ConstraintErrors = Readonly<Record<string, () => TollgateError>>

/** Runs a statement and turns its failure into an error that a caller may see, by constraint or by kind. */
export async function storing<T>(work: () => Promise<T>, constraints: ConstraintErrors = {}): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const name = constraintOf(error)
    const known = name === undefined || !Object.hasOwn(constraints, name) ? undefined : constraints[name]
    throw known === undefined ? asStorageError(error) : known()
  }
}

/** ALREADY_EXISTS for a request field whose value is taken. */
export function alreadyExists(field: string, value: string, where = ''): TollgateError {
  const description = `"${value}" exists already${where}`
  return new TollgateError('ALREADY_EXISTS', `${field}: ${description}. Choose another one.`, {
    metadata: { field, value },
    fields: [{ field, description, rule: 'unique' }],
  })
}

function constraintOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('constraint' in error)) return undefined
  return typeof error.constraint === 'string' ? error.constraint : undefined
}
