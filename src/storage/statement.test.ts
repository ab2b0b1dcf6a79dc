import { expect, test } from 'vitest'
import { assignments, Fragment, identifier, insertion, Statement } from './statement.ts'

function sql(strings: TemplateStringsArray, ...values: unknown[]): Fragment {
  return new Fragment(strings, values)
}

test('values become parameters, and parts of statements keep theirs', () => {
  const where = sql`where ${identifier('na"me')} = ${'a'} and ${sql`n > ${1}`} ${sql``}`
  expect(sql`select ${0} from t ${where} limit ${2}`.compile()).toEqual({
    text: 'select $1 from t where "na""me" = $2 and n > $3  limit $4',
    values: [0, 'a', 1, 2],
  })
})

test('records become columns and rows of an insert', () => {
  const records = [
    { id: 1, name: 'a' },
    { name: 'b', id: 2 },
  ]
  expect(sql`insert into t ${insertion(records)} returning *`.compile()).toEqual({
    text: 'insert into t ("id", "name") values ($1, $2), ($3, $4) returning *',
    values: [1, 'a', 2, 'b'],
  })
})

test('a record becomes the assignments of an update', () => {
  expect(sql`update t set ${assignments({ 'na"me': 'a', n: 1 })} where id = ${2}`.compile()).toEqual({
    text: 'update t set "na""me" = $1, "n" = $2 where id = $3',
    values: ['a', 1, 2],
  })
})

test('an undefined value is refused', () => {
  expect(() => sql`select ${undefined}`.compile()).toThrow('undefined value after "select "')
  expect(() => sql`insert into t ${insertion([{ id: 1 }, {}])}`.compile()).toThrow(TypeError)
})

test('a statement runs once, when it is awaited', async () => {
  let runs = 0
  const statement = new Statement(['select 1'], [], async ({ text }) => {
    runs += 1
    return text
  })
  expect(runs).toBe(0)
  expect([await statement, await statement, await statement.catch(() => '')]).toEqual(Array(3).fill('select 1'))
  expect(runs).toBe(1)
})

test('a statement that cannot be made is rejected, not thrown', async () => {
  const statement = new Statement(['select ', ''], [undefined], async () => [])
  await expect(statement).rejects.toThrow(TypeError)
})
