import { expect, test } from 'vitest'
import { DataClassificationSchema } from '../../gen/marketplace/v1/classification_pb.ts'
import { classificationMessage, classificationOf, classifications, mayReceive } from './classification.ts'

test('every level of the contract has a name, in its order, and both ways', () => {
  const names = ['unspecified', ...classifications].map((name) => `DATA_CLASSIFICATION_${name.toUpperCase()}`)
  expect(DataClassificationSchema.values.map(({ name }) => name)).toEqual(names)
  expect(classificationOf(classificationMessage(undefined))).toBeUndefined()
  for (const name of classifications) expect(classificationOf(classificationMessage(name))).toBe(name)
})

test('a level includes those before it, and none after it', () => {
  expect(mayReceive('confidential', 'public')).toBe(true)
  expect(mayReceive('confidential', 'confidential')).toBe(true)
  expect(mayReceive('confidential', 'restricted')).toBe(false)
})
