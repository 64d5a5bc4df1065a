-- schema: stamp an empty database with the schema version. Keys: schema string. Reply: the version it has.

call('SET', K.schema(), A.version, 'NX')
return call('GET', K.schema())
