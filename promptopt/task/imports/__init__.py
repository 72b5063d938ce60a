"""imports: configurations of other tools as task files. They are data: nothing that they name is run or fetched."""
